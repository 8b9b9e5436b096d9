"""What to look at in a build: figures that are out of the ordinary, each with the key to turn.

Pure. The report shows these sentences on top, and `generate` ends with them.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from magpie_ray.acceptance import remedy
from magpie_ray.publish.first_words import word_tree
from magpie_ray.publish.instruction_sample import GroupDiversity, Kind
from magpie_ray.publish.report.facts import Facts
from magpie_ray.types import Role
from magpie_ray.utils.text import percent, visible

_MOST_CUT, _LEAST_ACCEPTED, _MOST_ALIKE, _MOST_DUPLICATES = 0.10, 0.80, 0.25, 0.01
# Of 368 instructions by a model of 135 million parameters, at temperatures of 0.4, 0.7 and 1.0, 16%, 0.5%
# and none had a near-duplicate, and the nearest was 0.31, 0.59 and 0.74 away.
_MOST_NEAR, _LEAST_DISTANCE, _NAMED_GROUPS = 0.05, 0.4, 3
_REMEDIES: Mapping[Kind, str] = {
    "all": "raise sampling.user.temperature, or give more system prompts in system_prompt",
    "sampling": "raise its temperature",
    "prompt": "change it, or raise sampling.user.temperature",
}
_MOST_OF_A_LABEL = 0.95
# A share of fewer rows than these says little.
_LEAST_ROWS = 50
# The rate of the last third of the work against that of the middle third, without start and tail.
_FALLEN, _LEAST_FILES, _TAIL = 0.7, 24, 0.1


def advice(facts: Facts) -> Sequence[str]:
    """A sentence for each figure that is out of the ordinary; none for a build that has few rows."""
    if facts.survey.rows < _LEAST_ROWS:
        return ()
    return [
        *_cut(facts),
        *_rejected(facts),
        *_alike(facts),
        *_collapsed(facts),
        *_one_label(facts),
        *_slower(facts),
    ]


def _cut(facts: Facts) -> Iterator[str]:
    for role in get_args(Role):
        endings = Counter[str]()
        for (of, _), counts in facts.survey.finish_reasons.items():
            endings.update(counts if of == role else {})
        share = endings["length"] / max(1, endings.total())
        if share > _MOST_CUT:
            yield (
                f"{percent(share)} of the {role} messages were cut at their limit: raise "
                f"sampling.{role}.max_tokens"
            )


def _rejected(facts: Facts) -> Iterator[str]:
    tally = facts.tally
    if not tally.attempts or facts.accepted >= _LEAST_ACCEPTED:
        return
    reason, number = max(tally.rejected.items(), key=lambda item: item[1])
    if facts.build.job == "score":
        yield (
            f"{percent(tally.unanswered / tally.rows)} of the rows lack a score, most of them for "
            f"{visible(reason)}: {remedy(reason, 'assistant')}"
        )
        return
    yield (
        f"{percent(facts.accepted)} of the attempts were accepted, and {percent(number / tally.attempts)} "
        f"were rejected as {visible(reason)}: read `magpie-ray show {facts.url} --reason {visible(reason)}`, "
        "then change the prompt, the sampling or the rule under acceptance"
    )


def _alike(facts: Facts) -> Iterator[str]:
    survey = facts.survey
    if facts.build.answers or not survey.first_words:
        return  # its instructions are the source's
    share = survey.duplicates / survey.rows
    if share > _MOST_DUPLICATES:
        yield (
            f"{percent(share)} of the instructions repeat an earlier one: raise sampling.user.temperature, "
            "or give more system prompts in system_prompt"
        )
    for branch in word_tree(
        survey.first_words, first=2, second=1
    ):  # one may be of instructions without words
        share = branch.rows / survey.rows
        if branch.word and share > _MOST_ALIKE:
            yield (
                f"{percent(share)} of the instructions begin with {visible(branch.word)!r}: penalise it with "
                "sampling.user.first_tokens"
            )


def _collapsed(facts: Facts) -> Iterator[str]:
    """The groups whose instructions are too near each other; where groups don't differ in that, all."""
    is_collapsed = {
        group: group.diversity.near_duplicates > _MOST_NEAR or group.diversity.mean_distance < _LEAST_DISTANCE
        for group in facts.diversity
    }
    named = list[GroupDiversity]()
    for kind in ("sampling", "prompt"):
        of_kind = [group for group in facts.diversity if group.kind == kind]
        if not all(is_collapsed[group] for group in of_kind):
            named += [group for group in of_kind if is_collapsed[group]][:_NAMED_GROUPS]
    for group in named or [group for group in facts.diversity if is_collapsed[group]][:1]:
        found = group.diversity
        yield (
            f"the instructions collapse, {facts.group_name(group)}: of {found.texts:,}, "
            f"{percent(found.near_duplicates)} nearly repeat another one, and the nearest is "
            f"{found.mean_distance:.2f} away on average (1: no word in common): {_REMEDIES[group.kind]} "
            "before you pay for answers"
        )


def _one_label(facts: Facts) -> Iterator[str]:
    for name, counts in facts.survey.labels.items():
        label, rows = max(counts.items(), key=lambda item: item[1])
        share = rows / sum(counts.values())
        if label is not None and share > _MOST_OF_A_LABEL:
            yield (
                f"{percent(share)} of the rows have the {name} {visible(label)!r}, which then says little: "
                f"describe the labels in columns.{name}, or use a larger model"
            )


def _slower(facts: Facts) -> Iterator[str]:
    # Each run's end has a tail in which engines run dry; where there were several runs, pauses mix in.
    if len(facts.commits) < _LEAST_FILES or len(facts.runs) > 1:
        return
    bins = facts.bins[: round(len(facts.bins) * (1 - _TAIL))]
    third = len(bins) // 3
    first, last = (
        sum(part.tokens for part in some) / max(1e-9, sum(part.seconds for part in some))
        for some in (bins[third : 2 * third], bins[-third:])
    )
    if last < _FALLEN * first:
        yield (
            f"tokens/s fell from {first:,.0f} to {last:,.0f} while the build ran: look for lost actors, or "
            "for longer messages, and at cluster.num_actors"
        )
