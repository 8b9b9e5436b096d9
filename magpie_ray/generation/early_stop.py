"""When to give up: a row can't be accepted, or a prompt group is accepted too seldom.

What counts is a draw: an attempt from the first turn, together with those that continue after its turns.
First attempts fail more often than those that continue, and most attempts of the first minutes are first
ones.

Invariants: chance alone ends no build but one in 10,000, whatever its size (sequential_tests), unless
acceptance.max_attempts is a number. A finished or discarded row has no part in RowExhaustedError. A row that
can't be accepted does end the build, also as the only one of its group. Only a row of a source, which nobody
can draw anew, stays unanswered.
"""

from dataclasses import dataclass, field

from magpie_ray.acceptance import CONTEXT_FULL
from magpie_ray.errors import AcceptRateError, RowExhaustedError
from magpie_ray.generation.attempt_queue import Attempt
from magpie_ray.generation.conversation import Conversation
from magpie_ray.generation.prompt_groups import Draw, GroupKey, Outcome, PromptGroups, Reasons, Shortfall
from magpie_ray.generation.recipe import Recipe
from magpie_ray.generation.sequential_tests import differs, falls_short
from magpie_ray.types import Rejection

# With acceptance.max_attempts: auto no group goes on below this rate, also where min_accept_rate is lower:
# a build must not try for ever what is never accepted.
_LEAST_RATE = 0.001

# The same at a row of a source, which stays unanswered then: a pass must end whatever rows it is given.
ANSWER_ATTEMPTS = 5

_SHOW_REJECTS = "`magpie-ray show OUTPUT --rejects` shows more of them."
_OTHER_SETTINGS = "other settings need another output.path"


@dataclass(slots=True)
class _RejectedRow:
    """An unfinished row. failures: of its draws."""

    attempts: int = 0
    failures: int = 0
    reasons: Reasons = field(default_factory=Reasons)


class EarlyStop:
    """Counts outcomes of attempts, and raises when going on would not help."""

    def __init__(self, recipe: Recipe) -> None:
        self._max_attempts = recipe.acceptance.max_attempts
        self._min_accept_rate = rate = recipe.acceptance.min_accept_rate
        self._rate = max(rate, _LEAST_RATE) if self._max_attempts == "auto" else rate
        self._is_mixed = len(recipe.samplings) > 1
        self._may_stay_unanswered = recipe.answers is not None
        # All inputs are one group: there may be a million, each with a row or two. A row that can't be
        # accepted still shows among the others.
        groups = (1 if recipe.inputs else recipe.distinct_prompts) * len(recipe.samplings)
        self._groups = PromptGroups(self._rate, groups=groups)
        self._rows: dict[int, _RejectedRow] = {}  # by row id
        self._under_way: dict[int, Draw] = {}  # by row id

    def start(self, conversation: Conversation) -> None:
        """An attempt has started."""
        if conversation.inherited:
            return  # the draw goes on
        if self._may_stay_unanswered and conversation.attempt > 1:
            return  # rows of a source differ: those that are hard to answer would be counted again and again
        draw = Draw(self._key(conversation), conversation.row_id)
        self._under_way[conversation.row_id] = draw
        self._groups.start(draw)

    def reject(self, conversation: Conversation, rejection: Rejection, retry: Attempt) -> bool:
        """The attempt is rejected, and `retry` would be next. True: the row of a source stays unanswered.

        RowExhaustedError or AcceptRateError when it is one too many.
        """
        outcome = Outcome.of_rejection(rejection)
        row = self._rows.setdefault(rejection.row_id, _RejectedRow())
        row.attempts += 1
        row.reasons.note(outcome)
        if not retry.turns:
            row.failures += 1
            # What a whole group shows says more than one of its rows.
            self._end(rejection.row_id, outcome)
        if self._may_stay_unanswered:
            return self._stays_unanswered(conversation, rejection, row)
        given = rejection.input_id
        name = f"row {rejection.row_id}" + (f" (input {given})" if given is not None else "")
        self._check_row(row, name, self._key(conversation))
        return False

    def _stays_unanswered(self, conversation: Conversation, rejection: Rejection, row: _RejectedRow) -> bool:
        """Whether another attempt would end like this one, or was tried often enough."""
        if rejection.reason == CONTEXT_FULL and not rejection.text:
            return True  # the prompt alone fills the context
        if len(conversation.message_ids) == conversation.given and conversation.sampling_of_next.is_greedy:
            return True
        most = ANSWER_ATTEMPTS if self._max_attempts == "auto" else self._max_attempts
        return row.attempts >= most

    def finish(self, row_id: int) -> None:
        """The row is finished. AcceptRateError where earlier outcomes waited for this one."""
        self._rows.pop(row_id, None)
        self._end(row_id, Outcome())

    def discard(self, rows: range) -> None:
        """The rows are discarded. AcceptRateError as for `finish`."""
        for row_id in rows:
            self._rows.pop(row_id, None)
            self._under_way.pop(row_id, None)
        self._stop_at(self._groups.discard(rows))

    def _key(self, conversation: Conversation) -> GroupKey:
        prompt = None if conversation.start.input else conversation.system_prompt
        return GroupKey(prompt, conversation.sampling_key if self._is_mixed else None)

    def _end(self, row_id: int, outcome: Outcome) -> None:
        if draw := self._under_way.pop(row_id, None):
            self._stop_at(self._groups.end(draw, outcome))

    def _stop_at(self, shortfall: Shortfall | None) -> None:
        if shortfall:
            raise AcceptRateError(self._too_seldom(shortfall))

    def _too_seldom(self, shortfall: Shortfall) -> str:
        limit = f"acceptance.min_accept_rate is {self._min_accept_rate:g}"
        if self._rate != self._min_accept_rate:
            limit += f", and max_attempts: auto goes on at {self._rate:g} or more"
        return (
            f"{shortfall.rejected} of the last {shortfall.draws} attempts{shortfall.group} were rejected; "
            f"{limit}:\n{shortfall.reasons}\n{_SHOW_REJECTS} Other settings need another output.path, or "
            "this one without its files; acceptance.min_accept_rate may be lowered on this build."
        )

    def _check_row(self, row: _RejectedRow, name: str, key: GroupKey) -> None:
        group = self._groups.of(key)
        if self._max_attempts != "auto":
            if row.attempts < self._max_attempts:
                return
            why = "(acceptance.max_attempts)"
            remedy = "acceptance.max_attempts may be raised on this build, or set to auto"
        elif differs(row.failures, accepted=group.accepted, rejected=group.rejected):
            others = f"{group.accepted} of {group.accepted + group.rejected} attempts{key} were accepted"
            why = f"and chance does not explain it: {others} (acceptance.max_attempts: auto)"
            remedy = "acceptance.max_attempts may be a number on this build"
        elif falls_short(row.failures, rate=self._rate):
            rate = f"{self._rate:g} of its attempts"
            why = f"and chance does not explain it where {rate} are accepted (acceptance.max_attempts: auto)"
            remedy = "acceptance.min_accept_rate may be lowered on this build"
        else:
            return
        raise RowExhaustedError(
            f"{name} was rejected {row.attempts} times {why}:\n{row.reasons}\n{_SHOW_REJECTS} "
            f"{remedy}; {_OTHER_SETTINGS}."
        )
