"""Conversations over one engine, in turn-synchronous rounds.

How a conversation travels:

1. A row waits in the AttemptQueue, until the AdmissionWindow admits a cohort and it becomes a Conversation.
2. Rounds submits a request for the user's message. Its prompt is the chat format's prefix.
3. The engine returns a Completion. In another thread, Verdicts decodes it and applies the acceptance rules.
4. After an accepted user message, Rounds submits the request for the answer at once.
5. After an accepted answer, the conversation waits until its whole cohort has ended the turn, then starts
   again at step 2. While it waits, Rounds refreshes its KV cache when CacheUse says that it is about to be
   evicted.
6. With its last message, it comes out as a Row. A rejected message makes a Rejection at any step: EarlyStop
   decides whether bad luck explains it, and the row's next attempt waits in the AttemptQueue.

Read `recipe` and `conversation`, then `rounds`, then the parts that Rounds drives: `attempt_queue`,
`admission`, `verdicts`, `cache_use`, `early_stop` (with `prompt_groups` and `sequential_tests`). The parts do
not know Rounds.

Invariants: every row comes out once; a conversation stays token ids; nothing here knows Ray, vLLM or storage.
"""

from magpie_ray.generation.admission import AdmissionWindow
from magpie_ray.generation.recipe import Recipe, SamplingPair
from magpie_ray.generation.rounds import Rounds

__all__ = ["AdmissionWindow", "Recipe", "Rounds", "SamplingPair"]
