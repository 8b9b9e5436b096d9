"""The report: what it says, and that nothing of a build can be markup in it."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from magpie_ray.dataset import build_record, run_records
from magpie_ray.dataset.actor_history import ActorHistoryRecord, ActorLife
from magpie_ray.dataset.rejects import write_rejects
from magpie_ray.errors import PreflightError, ReportError
from magpie_ray.publish.report.chart import Chart
from magpie_ray.publish.report.charts_work import engines_up, timeline
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.page import render
from magpie_ray.publish.report.report import REPORT_KEY, charts_of, read_facts, write_report
from magpie_ray.publish.report.svg import clean, draw
from magpie_ray.publish.report.tables import cost_note, costs, tiles
from magpie_ray.publish.survey import Survey, word_tree
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, Rejection
from tests.support.builds import build_of, commit, complete_build, config_of, memory_storage, row_of
from tests.support.report_builds import HOSTILE, LANGUAGES, PROMPTS, rich_build
from tests.support.s3_server import S3Server


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return rich_build(tmp_path_factory.mktemp("rich"))


@pytest.fixture(scope="module")
def facts(storage: Storage) -> Facts:
    return read_facts(storage, price=2.5)


@pytest.fixture(scope="module")
def page(storage: Storage) -> str:
    write_report(storage, price=2.5)
    return storage.read(REPORT_KEY).decode()


class Elements(HTMLParser):
    """The tags and attributes of a page, and the text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.texts.append(data)


def test_the_first_screen_tells_what_matters(facts: Facts) -> None:
    told = {tile.name: f"{tile.value} ({tile.note})" for tile in tiles(facts)}
    assert told["Rows"] == "240 (all rows of the build)"
    assert told["Accepted"] == "72.7% (of 330 attempts)"
    assert told["Duplicates"].endswith("of 240 instructions occur earlier)")
    assert told["GPU hours"].endswith("at 2.5 an hour)")
    assert set(told) == {"Rows", "Tokens", "Accepted", "Duplicates", "GPU hours", "Rows/s"}


def test_runs_are_laid_one_after_the_other_and_files_fall_into_theirs(facts: Facts) -> None:
    assert [(s.begin, s.seconds) for s in facts.stretches] == [(0, 4500), (4500, 4500), (9000, 4500)]
    assert len(facts.commits) == 30
    for at, record in facts.commits:
        begin = facts.stretches[record.run - 1].begin
        assert begin + 600 <= at <= begin + 4200
    assert sum(span.rows for span in facts.bins) == 240
    assert sum(span.tokens for span in facts.bins) == facts.tally.tokens


def test_of_a_copied_build_no_times_are_told(facts: Facts) -> None:
    later = {key: at + 10**6 for key, at in facts.written.items()}
    copied = Facts(**{**vars_of(facts), "written": later})
    assert copied.commits == ()
    assert copied.bins == ()
    assert "they were copied since" in render(copied, {})


def vars_of(facts: Facts) -> dict[str, object]:
    return {name: getattr(facts, name) for name in Facts.__dataclass_fields__}


def test_cost_is_told_with_a_price_and_what_is_not_known_is_said(facts: Facts) -> None:
    assert costs(facts)["Cost"] == f"{facts.gpu_hours * 2.5:,.2f}"
    free = Facts(**{**vars_of(facts), "price": None})
    assert "Cost" not in costs(free)
    assert "--price-per-gpu-hour" in cost_note(free)
    partly = Facts(**{**vars_of(facts), "histories": {1: facts.histories[1]}})
    assert "Not recorded for run 2, 3" in cost_note(partly)


def test_prompts_stand_against_their_weights(facts: Facts) -> None:
    shares = {share.name: share for share in facts.prompts}
    assert list(shares) == [prompt.key for prompt in PROMPTS]
    assert sum(share.rows for share in facts.prompts) == 240
    for share in facts.prompts:
        assert share.share == pytest.approx(share.weight, abs=0.12)


def test_settings_that_rows_chose_from_stand_against_their_weights() -> None:
    storage = memory_storage()
    user = [
        {"temperature": 1.0, "first_tokens": {"ban": ["#"]}, "weight": 3},
        {"temperature": 0.7, "weight": 1},
    ]
    config = config_of(sampling={"user": user, "assistant": [{}, {"max_tokens": 9}]})
    complete_build(storage, config=config)
    shares = read_facts(storage).samplings
    assert [(share.name, share.rows, share.weight) for share in shares] == [
        ("0", 10, 0.375),
        ("1", 0, 0.375),
        ("2", 0, 0.125),
        ("3", 0, 0.125),
    ]
    assert shares[1].text == 'user.first_tokens.ban ["#"], user.temperature 1.0, assistant.max_tokens 9'
    write_report(storage)
    assert shares[3].text in " ".join(Elements(storage.read(REPORT_KEY).decode()).texts)


def test_what_was_thought_before_an_answer_can_be_opened_beside_it() -> None:
    storage, config = memory_storage(), config_of(model={"thinking": True})
    complete_build(storage, config=config, reasoning=f"Let me see {HOSTILE[0]}")
    write_report(storage)
    page = Elements(storage.read(REPORT_KEY).decode())
    assert page.texts.count(f"Let me see {HOSTILE[0]}") == 10
    assert [tag for tag, has in page.tags if has.get("class") == "reasoning"] == ["details"] * 10


def test_the_timeline_keeps_the_slots_with_losses_when_there_are_too_many() -> None:
    lives = [
        ActorLife(slot=slot, asked=0, placed=1, ready=2, ended=9, end="lost" if slot == 777 else "ended")
        for slot in range(1000)
    ]
    facts = facts_of(
        {1: ActorHistoryRecord(run=1, device="cuda", num_gpus=1, seconds=10, lives=tuple(lives))}
    )
    placed, slots = timeline(facts, 24)
    assert slots == 1000
    assert 20 <= len({life.key for life in placed}) <= 24
    assert 777 in {life.life.slot for life in placed}
    assert max(up for _, up in engines_up(facts)) == 1000
    assert engines_up(facts)[-1] == (9, 0)


def test_a_life_without_a_place_is_not_drawn_and_one_without_an_end_lasts_until_now() -> None:
    lives = (ActorLife(slot=0, asked=0), ActorLife(slot=1, asked=0, placed=1, ready=2))
    facts = facts_of({1: ActorHistoryRecord(run=1, device="cuda", num_gpus=1, seconds=10, lives=lives)})
    [placed], slots = timeline(facts, 24)
    assert (placed.life.slot, placed.ended, slots) == (1, 10, 1)


def facts_of(histories: dict[int, ActorHistoryRecord]) -> Facts:
    run = run_records.RunRecord(
        number=1, token="t", num_rows=10, host="h", started="2026-01-01T00:00:00+00:00", config={}
    )
    return Facts(
        url="s3://bucket/build",
        build=build_of(),
        runs=[run],
        records=[],
        num_rows=10,
        survey=Survey(),
        today="2026-01-02",
        histories=histories,
    )


def test_the_word_tree_is_ordered_and_cut() -> None:
    words = {("what", "is"): 5, ("what", "are"): 7, ("how", ""): 3, ("write", "a"): 20, ("", ""): 1}
    tree = word_tree(Survey(rows=36, first_words=words), first=3, second=1)
    assert [(branch.word, branch.rows, branch.then) for branch in tree] == [
        ("write", 20, [("a", 20)]),
        ("what", 12, [("are", 7)]),
        ("how", 3, [("", 3)]),
    ]


def test_hostile_text_is_shown_and_is_no_markup(page: str) -> None:
    elements = Elements(page)
    ours = {"html", "head", "meta", "link", "title", "style", "body", "header", "h1", "h2", "h3", "span"}
    ours |= {"button", "p", "dl", "div", "dt", "dd", "nav", "a", "main", "section", "figure", "figcaption"}
    ours |= {"table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre", "code", "article"}
    ours |= {"b", "bdi", "footer", "script", "svg", "g", "path", "rect", "line", "text", "defs", "clippath"}
    assert {tag for tag, _ in elements.tags} <= ours
    assert sum(tag == "script" for tag, _ in elements.tags) == 1
    names = {name for _, attributes in elements.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name in ("src", "style", "srcset")}
    links = {attributes["href"] for _, attributes in elements.tags if attributes.get("href")}
    assert all(link is not None and (link == "data:," or link.startswith("#")) for link in links)
    text = "".join(elements.texts)
    for hostile in HOSTILE[:4]:
        assert hostile in text
    assert r"\u202egnp.exe\u202c" in text
    assert r"\x1b[2J\x1b[31mred" in text
    assert r"nul\x00 and bell\x07" in text
    assert "{{ 7 * 7 }}" in text
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page)


def test_text_of_any_language_is_there_as_it_is(page: str) -> None:
    text = "".join(Elements(page).texts)
    assert all(words in text for words in LANGUAGES)
    assert 'dir="auto"' in page


def test_the_page_fetches_nothing_and_is_small(page: str) -> None:
    [policy] = [
        a["content"] for t, a in Elements(page).tags if a.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert len(page.encode()) < 2_000_000
    assert not re.search(r"url\((?!#)|@import", page)


def test_charts_follow_the_pages_colours_and_keep_their_names_apart(page: str) -> None:
    svgs = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(svgs) >= 9
    assert all('role="img" aria-label="' in svg for svg in svgs)
    assert "var(--user)" in page
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r"url\(#([\w-]+)\)", page)) <= set(ids)


def rejection_of(row_id: int, reason: str) -> Rejection:
    return Rejection(
        row_id=row_id,
        attempt=2,
        role="assistant",
        turn=1,
        reason=reason,
        text=f"{HOSTILE[0]} number {row_id}",
        messages=(row_of(0).messages[0],),
        system_prompt=PROMPTS[0],
        user_tokens=1,
        assistant_tokens=1,
    )


def test_examples_of_rejected_messages_are_shown() -> None:
    storage = memory_storage()
    complete_build(storage)
    rejections = [rejection_of(row_id, reason="marker<i>") for row_id in range(4)]
    write_rejects(storage, Partition(start=0, stop=4), rejections)
    write_report(storage)
    text = "".join(Elements(storage.read(REPORT_KEY).decode()).texts)
    assert "Rejected: marker<i>" in text
    assert "row 1, attempt 2, math" in text
    assert "assistant · rejected" in text
    assert f"{HOSTILE[0]} number 2" in text
    assert "number 3" not in text


def test_what_was_rejected_is_shown_where_nothing_was_accepted() -> None:
    storage = memory_storage()
    build_record.open_build(storage, build_of())
    write_rejects(storage, Partition(start=0, stop=4), [rejection_of(1, reason="empty")])
    write_report(storage)
    text = "".join(Elements(storage.read(REPORT_KEY).decode()).texts)
    assert "Nothing was accepted yet" in text
    assert "Rejected: empty" in text


def test_examples_of_rejected_messages_are_of_different_parts_of_the_build() -> None:
    storage = memory_storage()
    complete_build(storage)
    for start in range(0, 4000, 4):
        partition = Partition(start=start, stop=start + 4)
        write_rejects(storage, partition, [rejection_of(start + i, reason="empty") for i in range(3)])
    rows = sorted(int(str(reject["row_id"])) for reject in read_facts(storage).rejects)
    assert len(rows) == 3
    assert rows[0] < 2000 < rows[2]
    assert all(later - row > 400 for row, later in pairwise(rows))


def builds() -> Iterator[tuple[str, Storage]]:
    nothing = memory_storage()
    build_record.open_build(nothing, build_of())
    yield "no run yet", nothing
    begun = memory_storage()
    build_record.open_build(begun, build_of())
    run_records.start_run(begun, num_rows=10, host="here", config={})
    yield "no rows yet", begun
    half = memory_storage()
    record = build_record.open_build(half, build_of())
    run_records.start_run(half, num_rows=10, host="here", config={})
    commit(half, record, 4, 8)
    yield "a run that died without a word", half
    whole = memory_storage()
    complete_build(whole)
    yield "complete, without lives", whole
    empty = memory_storage()
    complete_build(empty, texts=("???", ""))
    yield "texts without words", empty


@pytest.mark.parametrize("storage", [pytest.param(found, id=name) for name, found in builds()])
def test_there_is_a_page_whatever_state_a_build_is_in(storage: Storage) -> None:
    where = write_report(storage)
    assert where == storage.display(REPORT_KEY)
    text = " ".join(Elements(storage.read(REPORT_KEY).decode()).texts)
    complete = storage.exists("_SUCCESS")
    assert ("not complete" in text) == (not complete)


def test_where_there_is_no_build_there_is_no_report() -> None:
    storage = memory_storage()
    with pytest.raises(PreflightError, match="holds no build"):
        write_report(storage)
    assert storage.list_objects("") == []


def test_a_renderer_that_fails_says_which_chart_and_leaves_the_old_report() -> None:
    spec = {"data": {"values": [{}]}, "transform": [{"filter": "nonsense"}], "mark": "bar"}
    with pytest.raises(ReportError, match=r"could not be drawn .*: odd: .*nonsense"):
        draw({"odd": Chart(title="", spec=spec)})
    storage = memory_storage()
    complete_build(storage)
    storage.replace(REPORT_KEY, b"old")
    with pytest.raises(ReportError, match="timed out"):
        write_report(storage, drawing_seconds=0.001)
    assert storage.read(REPORT_KEY) == b"old"


def test_what_is_no_drawing_is_left_out_of_one() -> None:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" width="1" height="1" onload="a()">'
        '<script>a()</script><a href="x"><rect/></a><style>x</style><image href="x"/><foreignObject/>'
        '<path id="p" onclick="a()" style="x" d="M0" aria-label="5 &lt; 6"/>'
        '<g clip-path="url(#p)">t</g></svg>'
    )
    cleaned = clean(svg, "name", "what <it> shows")
    assert cleaned == (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1" role="img" '
        'aria-label="what &lt;it&gt; shows"><path id="name-p" d="M0"><title>5 &lt; 6</title></path>'
        '<g clip-path="url(#name-p)">t</g></svg>'
    )


def test_every_chart_is_named_for_those_who_cannot_see_it(facts: Facts) -> None:
    charts = charts_of(facts)
    assert set(charts) >= {"rows", "rate", "actors", "engines", "user-tokens", "reasons", "prompts", "words"}
    assert all(len(chart.title) > 10 for chart in charts.values())


def test_a_report_goes_where_the_build_is(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    complete_build(storage)
    write_report(storage)
    assert (tmp_path / "_magpie" / "report.html").read_bytes().startswith(b"<!doctype html>")


def test_a_report_goes_to_an_object_store_too_with_times_of_its_listing(s3_server: S3Server) -> None:
    storage = Storage(f"s3://{s3_server.bucket}/report", s3_server.storage_options)
    complete_build(storage)
    where = write_report(storage)
    assert where == f"s3://{s3_server.bucket}/report/{REPORT_KEY}"
    assert b"<!doctype html>" in storage.read(REPORT_KEY)
    assert len(read_facts(storage).commits) == 3
