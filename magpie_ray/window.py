"""How many conversations are alive at once on one engine, and in cohorts of which size.

Pure arithmetic on the engine's own figures: enough live conversations to keep the batch full through the
stragglers of each turn, few enough that the KV cache still holds a conversation when its next turn comes.
"""

from dataclasses import dataclass

from magpie_ray.types import EngineFigures

# A cohort of one would be no cohort; above 64 a cohort's stragglers cost more than interleaving hides.
_MIN_COHORT, _MAX_COHORT = 16, 64
# Live conversations per engine slot at which small cohorts waste nothing (event simulation, 512 slots,
# lognormal user and normal assistant lengths: 1.00x of no barrier at 3, 1.01-1.23x at 2, 1.9-2.4x at 1).
_LIVE_PER_SLOT = 3
# In so many cohorts, where that leaves them large enough. A single one in flight would leave the engine idle
# while its stragglers end, which costs more than evicting a prefix now and then.
_COHORTS, _MIN_IN_FLIGHT = 24, 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """How many conversations advance together, and how many such cohorts are in flight."""

    cohort_size: int
    cohorts_in_flight: int

    @property
    def live(self) -> int:
        """Conversations alive at once, at most."""
        return self.cohort_size * self.cohorts_in_flight


def choose_window(
    figures: EngineFigures,
    *,
    cohort_size: int | None,
    cohorts_in_flight: int | None,
    tokens_per_conversation: int,
) -> Window:
    """The window for an engine; None chooses.

    tokens_per_conversation: the expected length of a finished one, in tokens of KV cache.
    """
    held = figures.kv_cache_tokens // max(1, tokens_per_conversation)
    live = min(_LIVE_PER_SLOT * figures.max_num_seqs, held)
    size = cohort_size or min(max(live // _COHORTS, _MIN_COHORT), _MAX_COHORT)
    return Window(cohort_size=size, cohorts_in_flight=cohorts_in_flight or max(_MIN_IN_FLIGHT, live // size))
