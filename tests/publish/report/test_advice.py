"""What a report says on top, and the key that each sentence names."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from magpie_ray.cli.views.results import result_text
from magpie_ray.coordinator.run import BuildResult
from magpie_ray.counters import Tally
from magpie_ray.publish.instruction_sample import GroupDiversity, Kind
from magpie_ray.publish.report.advice import advice
from magpie_ray.publish.report.facts import Bin, Facts
from magpie_ray.publish.survey import Survey
from magpie_ray.similarity.diversity import Diversity
from tests.support.builds import build_of

ORDINARY = Survey(
    rows=100,
    finish_reasons={("user", 1): {"stop": 100}, ("assistant", 1): {"stop": 95, "length": 5}},
    first_words={("what", "is"): 20, ("how", "to"): 20, ("", ""): 60},
    first_rows={digest: digest for digest in range(100)},
)


def said(
    survey: Survey = ORDINARY,
    rejected: dict[str, int] | None = None,
    rates: Sequence[int] = (),
    diversity: Sequence[GroupDiversity] = (),
) -> list[str]:
    tally: Any = Tally(rows=100, rejected=rejected or {})
    facts = Facts(
        url="/out", build=build_of(), runs=(), records=(), num_rows=100, survey=survey, today="2026-01-01"
    )
    bins = [Bin(begin=i, end=i + 1, tokens=tokens) for i, tokens in enumerate(rates)]
    facts.__dict__.update({"tally": tally, "bins": bins, "commits": rates, "diversity": diversity})
    return list(advice(facts))


def test_of_an_ordinary_build_nothing_is_said() -> None:
    assert said() == []
    assert said(rejected={"empty": 25}) == []  # 80% accepted


def test_cut_messages_name_the_limit_of_their_role() -> None:
    endings = {("user", 1): {"stop": 100}, ("assistant", 1): {"stop": 80, "length": 20}}
    [text] = said(replace(ORDINARY, finish_reasons=endings))
    assert (
        text == "20% of the assistant messages were cut at their limit: raise sampling.assistant.max_tokens"
    )


def test_many_rejects_name_the_most_frequent_reason() -> None:
    [text] = said(rejected={"empty": 10, "refusal": 90})
    assert text.startswith("50% of the attempts were accepted, and 45% were rejected as refusal: ")
    assert "magpie-ray show /out --reason refusal" in text


def test_repeats_and_one_opening_name_what_makes_instructions_differ() -> None:
    [text] = said(replace(ORDINARY, repeats={7: 11}))
    assert text.startswith("10% of the instructions repeat an earlier one: raise sampling.user.temperature")
    [text] = said(replace(ORDINARY, first_words={("what", "is"): 40, ("how", "to"): 20, ("", ""): 40}))
    assert text == ("40% of the instructions begin with 'what': penalise it with sampling.user.first_tokens")


def group(kind: Kind, key: int | None, *, near: float = 0.0, mean: float = 0.8) -> GroupDiversity:
    found = Diversity(texts=1000, near_duplicates=near, mean_distance=mean)
    return GroupDiversity(kind=kind, key=key, diversity=found)


def test_a_group_that_collapses_is_named_and_all_of_them_are_one() -> None:
    both = [group("sampling", 0), group("sampling", 1, near=0.2)]
    assert said(diversity=[group("all", None, near=0.05, mean=0.4), both[0]]) == []
    [text] = said(diversity=[group("all", None, near=0.1), *both])
    assert text.startswith("the instructions collapse, sampling_key 1: of 1,000, 20% nearly repeat another")
    assert "raise its temperature before you pay for answers" in text
    [text] = said(diversity=[group("all", None, mean=0.3), group("sampling", 0, near=0.3), both[1]])
    assert text.startswith("the instructions collapse, all instructions: of 1,000, 0% nearly repeat")
    assert "0.30 away on average" in text
    assert "sampling.user.temperature" in text


def test_a_rate_that_fell_is_told_but_not_for_the_start_and_the_tail() -> None:
    assert said(rates=[100] * 30) == []
    assert said(rates=[10] * 9 + [100] * 18 + [10] * 3) == []
    [text] = said(rates=[100] * 18 + [60] * 12)
    assert text.startswith("tokens/s fell from 100 to 60 while the build ran")
    assert "cluster.num_actors" in text
    assert said(rates=[100] * 12 + [50] * 8) == []  # too few files


def test_a_few_rows_are_no_ground_for_advice() -> None:
    endings = {("assistant", 1): {"length": 49}}
    assert said(replace(ORDINARY, rows=49, finish_reasons=endings)) == []


def test_generate_ends_with_the_same_words() -> None:
    result = BuildResult(url="/out", num_rows=1, new_rows=1, seconds=1.0, advice=("one thing", "another"))
    assert result_text(result).endswith("\nlook at: one thing\nlook at: another")
