"""The lives of actors on the axis of work."""

from magpie_ray.dataset import run_records
from magpie_ray.dataset.actor_history import ActorHistoryRecord, ActorLife
from magpie_ray.publish.report.charts_work import engines_up, timeline
from magpie_ray.publish.report.facts import Facts
from magpie_ray.publish.survey import Survey
from tests.support.builds import build_of


def test_the_timeline_keeps_the_slots_with_losses_when_there_are_too_many() -> None:
    lives = [
        ActorLife(slot=slot, asked=0, placed=1, ready=2, ended=9, end="lost" if slot == 777 else "ended")
        for slot in range(1000)
    ]
    facts = facts_of(
        {
            1: ActorHistoryRecord(
                run=1,
                device="cuda",
                num_gpus=1,
                seconds=10,
                lives=tuple(lives),
                left_out=0,
                left_out_seconds=0,
            )
        }
    )
    placed, slots = timeline(facts, 24)
    assert slots == 1000
    assert 20 <= len({life.key for life in placed}) <= 24
    assert 777 in {life.life.slot for life in placed}
    assert max(up for _, up in engines_up(facts)) == 1000
    assert engines_up(facts)[-1] == (9, 0)


def test_a_life_without_a_place_is_not_drawn_and_one_without_an_end_lasts_until_now() -> None:
    lives = (ActorLife(slot=0, asked=0), ActorLife(slot=1, asked=0, placed=1, ready=2))
    facts = facts_of(
        {
            1: ActorHistoryRecord(
                run=1, device="cuda", num_gpus=1, seconds=10, lives=lives, left_out=0, left_out_seconds=0
            )
        }
    )
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
