"""The page: it shows any text, fetches nothing, and nothing of a build is markup in it."""

import re

from magpie_ray.dataset import build_record
from magpie_ray.dataset.layout import REPORT_KEY
from magpie_ray.dataset.rejects import replace_sample
from magpie_ray.publish.report.report import write_report
from magpie_ray.types import Partition
from tests.support.builds import build_of, complete_build, config_of, memory_storage
from tests.support.html_elements import Elements
from tests.support.report_builds import HOSTILE, LANGUAGES, rejection_of


def test_hostile_text_is_shown_and_is_no_markup(page: str) -> None:
    elements = Elements(page)
    ours = {"html", "head", "meta", "link", "title", "style", "body", "header", "h1", "h2", "h3", "span"}
    ours |= {"button", "p", "dl", "div", "dt", "dd", "nav", "a", "main", "section", "figure", "figcaption"}
    ours |= {"table", "thead", "tbody", "tr", "th", "td", "details", "summary", "pre", "code", "article"}
    ours |= {
        "b",
        "bdi",
        "input",
        "select",
        "footer",
        "script",
        "svg",
        "g",
        "path",
        "rect",
        "line",
        "text",
        "defs",
        "clippath",
    }
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


def test_nodes_that_were_left_alone_are_named_with_the_cause(page: str) -> None:
    assert "node-3&lt;i&gt; (4f4f4f4f)" in page
    assert "ECC error" in page


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


def test_every_chart_says_above_it_what_it_shows(page: str) -> None:
    figures = re.findall(r"<figure>(.*?)</figure>", page, flags=re.DOTALL)
    assert len(figures) > 5
    captions = [re.match(r"\s*<figcaption>(.+?)</figcaption>", figure, flags=re.DOTALL) for figure in figures]
    assert all(captions)
    assert any(caption and "What each actor did when" in caption[1] for caption in captions)


def test_what_was_thought_before_an_answer_can_be_opened_beside_it() -> None:
    storage, config = memory_storage(), config_of(model={"thinking": True})
    complete_build(storage, config=config, reasoning=f"Let me see {HOSTILE[0]}")
    write_report(storage)
    page = Elements(storage.read(REPORT_KEY).decode())
    assert page.texts.count(f"Let me see {HOSTILE[0]}") == 10
    assert [tag for tag, has in page.tags if has.get("class") == "reasoning"] == ["details"] * 10


def test_examples_of_rejected_messages_are_shown() -> None:
    storage = memory_storage()
    complete_build(storage)
    rejections = [rejection_of(row_id, reason="marker<i>") for row_id in range(4)]
    replace_sample(storage, Partition(start=0, stop=4), rejections)
    write_report(storage)
    text = "".join(Elements(storage.read(REPORT_KEY).decode()).texts)
    assert "marker<i> · row 1, attempt 2 · math" in text
    assert "assistant · rejected" in text
    assert f"{HOSTILE[0]} number 2" in text
    assert "number 3" not in text


def test_what_was_rejected_is_shown_where_nothing_was_accepted() -> None:
    storage = memory_storage()
    build_record.open_build(storage, build_of())
    replace_sample(storage, Partition(start=0, stop=4), [rejection_of(1, reason="empty")])
    write_report(storage)
    text = "".join(Elements(storage.read(REPORT_KEY).decode()).texts)
    assert "Nothing was accepted yet" in text
    assert "empty · row 1" in text
