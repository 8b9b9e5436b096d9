"""Conversations for tests of admission and of cache use."""

from magpie_ray.config.sampling import SamplingSettings
from magpie_ray.engine.protocol import Sampling
from magpie_ray.generation.conversation import Cohort, Conversation
from magpie_ray.generation.recipe import SamplingPair, Start

_GREEDY = Sampling(settings=SamplingSettings(temperature=0.0, max_tokens=9))


def conversation_of(cohort: Cohort, row_id: int = 0, *, accepted: int = 0, shared: int = 0) -> Conversation:
    """The first attempt at a row, with `accepted` messages of one token each."""
    return Conversation(
        row_id=row_id,
        attempt=1,
        start=Start(None, ()),
        sampling=SamplingPair(user=_GREEDY, assistant=_GREEDY),
        sampling_key=0,
        cohort=cohort,
        shared_tokens=shared,
        message_ids=[[1]] * accepted,
    )
