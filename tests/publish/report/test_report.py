"""The report as a whole: a page for every state of a build, written where the build is."""

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from magpie_ray.counters import Tally
from magpie_ray.curation.select import SelectSpec, select
from magpie_ray.dataset import build_record, run_records
from magpie_ray.dataset.columns import to_table
from magpie_ray.dataset.layout import REPORT_KEY
from magpie_ray.dataset.parquet import to_parquet
from magpie_ray.dataset.rejects import replace_sample
from magpie_ray.dataset.run_records import GONE_SECONDS
from magpie_ray.errors import PreflightError, ReportError
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.report.report import charts_of, read_facts, write_report
from magpie_ray.storage.storage import Storage
from magpie_ray.types import Partition, Row
from tests.support.builds import build_of, commit, complete_build, config_of, memory_storage, row_of
from tests.support.html_elements import Elements
from tests.support.report_builds import rejection_of
from tests.support.s3_server import S3Server


def test_examples_of_rejected_messages_are_of_different_parts_of_the_build() -> None:
    storage = memory_storage()
    complete_build(storage)
    for start in range(0, 4000, 4):
        partition = Partition(start=start, stop=start + 4)
        replace_sample(storage, partition, [rejection_of(start + i, reason="empty") for i in range(3)])
    rows = sorted(int(str(reject["row_id"])) for reject in read_facts(storage).rejects)
    assert len(rows) == 3
    assert rows[0] < 2000 < rows[2]
    assert all(later - row > 400 for row, later in pairwise(rows))


def test_the_page_shows_which_sampling_setting_and_which_prompt_collapsed() -> None:
    storage, random = memory_storage(), Random(0)
    prompts = {"maths": "You do mathematics.", "<i>any</i>": "You talk."}
    user = [{"temperature": 1.0, "weight": 1}, {"temperature": 0.2, "weight": 1}]
    config = config_of(num_rows=600, only_instruction=True, system_prompt=prompts, sampling={"user": user})
    record = build_record.open_build(storage, build_of(600, config, **config.identity()))
    words = [f"{a}{b}{c}" for a in "bdfgklm" for b in "aeiou" for c in "lmnrst"]
    rows = list[Row]()
    for row_id in range(600):
        text = " ".join(random.choices(words, k=8))
        if row_id % 2:
            text = f"Give me {random.choice(words)} advice, please!"
        row = row_of(row_id, [text], random.choice(config.prompts))
        rows.append(replace(row, sampling_key=row_id % 2))
    data, written = to_parquet(
        to_table(rows, config), compression="zstd", fingerprint=record.fingerprint, run=1, tally=Tally()
    )
    storage.create(written.partition.key, data)
    written = write_report(storage)
    [collapse] = [text for text in written.advice if "collapse" in text]
    assert "sampling_key 1 (user.temperature 0.2)" in collapse
    assert {(group.kind, group.key) for group in written.facts.diversity} == {
        ("all", None),
        ("sampling", 0),
        ("sampling", 1),
        *(("prompt", text) for text in prompts.values()),
    }
    texts = Elements(storage.read(REPORT_KEY).decode()).texts
    assert "system prompt <i>any</i>" in texts
    assert "with a near-duplicate" in texts


def test_the_report_of_a_selection_shows_what_each_condition_removed() -> None:
    source, storage = memory_storage(), memory_storage()
    complete_build(source)
    sql = "SELECT * FROM rows WHERE row_id > 1 AND row_id < 8"
    select(storage, SelectSpec(sources={"rows": source.url}, sql=sql, storage_options={}))
    write_report(storage)
    elements = Elements(storage.read(REPORT_KEY).decode())
    assert "What the query took" in elements.texts
    assert "Of 10 rows before WHERE, 6 meet all conditions; 6 were kept." in elements.texts
    place = elements.texts.index("row_id < 8")
    assert elements.texts[place : place + 4] == ["row_id < 8", "2", "20%", "2"]
    whole = memory_storage()
    select(whole, SelectSpec(sources={"rows": source.url}, sql="SELECT * FROM rows", storage_options={}))
    write_report(whole)
    assert "the query has no WHERE of its own" in whole.read(REPORT_KEY).decode()


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


def test_a_run_whose_driver_is_gone_is_lost_and_one_at_work_is_running(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "build"))
    build_record.open_build(storage, build_of())
    for _ in range(2):
        run_records.start_run(storage, num_rows=10, host="here", config={})
    old = time.time() - 10 * GONE_SECONDS
    [first, _] = sorted((tmp_path / "build/_magpie/runs").iterdir())
    os.utime(first, (old, old))
    assert read_facts(storage).lost_runs == {1}
    write_report(storage)
    text = " ".join(Elements(storage.read(REPORT_KEY).decode()).texts)
    assert text.count("lost: its driver is gone without a word") == 1
    assert "running" in text


@pytest.mark.parametrize("storage", [pytest.param(found, id=name) for name, found in builds()])
def test_there_is_a_page_whatever_state_a_build_is_in(storage: Storage) -> None:
    where = write_report(storage).location
    assert where == storage.display(REPORT_KEY)
    text = " ".join(Elements(storage.read(REPORT_KEY).decode()).texts)
    complete = storage.exists("_SUCCESS")
    assert ("not complete" in text) == (not complete)


def test_where_there_is_no_build_there_is_no_report() -> None:
    storage = memory_storage()
    with pytest.raises(PreflightError, match="holds no build"):
        write_report(storage)
    assert storage.list_objects("") == []


def test_charts_that_take_too_long_leave_the_old_report() -> None:
    storage = memory_storage()
    complete_build(storage)
    storage.replace(REPORT_KEY, b"old")
    with pytest.raises(ReportError, match="timed out"):
        write_report(storage, drawing_seconds=0.001)
    assert storage.read(REPORT_KEY) == b"old"


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
    where = write_report(storage).location
    assert where == f"s3://{s3_server.bucket}/report/{REPORT_KEY}"
    assert b"<!doctype html>" in storage.read(REPORT_KEY)
    assert len(read_facts(storage).commits) == 3
