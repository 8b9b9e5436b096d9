"""Engines for tests: simulated ones with scripted answers, as factories that travel to Ray actors."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

from magpie_ray.engine.protocol import EngineFigures, Request
from magpie_ray.engine.simulated.engine import Answer, SimulatedEngine
from magpie_ray.model.tokenizer import load_tokenizer
from magpie_ray.worker.spec import WorkerSpec

FIGURES = EngineFigures(max_num_seqs=16, kv_cache_tokens=100_000, max_model_len=2048)


@dataclass(frozen=True)
class ScriptedEngine:
    """An engine factory: random words of the spec's own tokenizer, seeded by the engine's seed.

    One answer in `reject_every` is empty (0: none).
    """

    reject_every: int = 0
    figures: EngineFigures = FIGURES

    def __call__(self, spec: WorkerSpec) -> SimulatedEngine:
        return SimulatedEngine(self.answers(spec), figures=self.figures)

    def answers(self, spec: WorkerSpec) -> Callable[[Request], Answer]:
        """What one engine answers."""
        model = spec.build_spec.model
        tokenizer = load_tokenizer(model.location, revision=model.revision).tokenizer
        words = [
            tokenizer.encode(word, add_special_tokens=False) for word in (" one", " two", " three", " four")
        ]
        draw = random.Random(spec.engine_seed)

        def respond(request: Request) -> Answer:
            if self.reject_every and draw.randrange(self.reject_every) == 0:
                return [], "stop"
            return [token for _ in range(draw.randint(1, 12)) for token in draw.choice(words)], "stop"

        return respond


@dataclass(frozen=True)
class NumberedEngine(ScriptedEngine):
    """The same, but that each answer begins with the last number of its prompt: see `numbered`."""

    def answers(self, spec: WorkerSpec) -> Callable[[Request], Answer]:
        model = spec.build_spec.model
        tokenizer = load_tokenizer(model.location, revision=model.revision).tokenizer
        scripted = ScriptedEngine.answers(self, spec)

        def respond(request: Request) -> Answer:
            [*_, number] = re.findall(r"\d+", tokenizer.decode(request.prompt_token_ids))
            words, reason = scripted(request)
            if not words:
                return [], reason
            return [*tokenizer.encode(f"{number}:", add_special_tokens=False), *words], reason

        return respond


def numbered(answer: str) -> int | None:
    """The number that an answer of a NumberedEngine begins with; None where it has none."""
    found = re.match(r"\d+", answer)
    return int(found[0]) if found else None


Factory = Callable[[WorkerSpec], SimulatedEngine]
