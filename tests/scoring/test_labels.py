"""The search for the most probable label, against all labels counted out."""

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from magpie_ray.errors import ConfigError, EngineError
from magpie_ray.scoring.labels import Fork, Search, fork_of

END = (0, 9)  # two tokens that end a message
LABELS = st.lists(
    st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple), min_size=2, max_size=12, unique=True
)


def named(all_ids: list[tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {" ".join(map(str, ids)): ids for ids in all_ids}


class Model:
    """Log-probabilities of the next token, drawn once for each beginning."""

    def __init__(self, seed: int, sharpness: float) -> None:
        self._seed, self._sharpness = seed, sharpness

    def log_probabilities(self, so_far: tuple[int, ...]) -> list[float]:
        draw = random.Random(f"{self._seed} {so_far}")
        logits = [self._sharpness * draw.random() for _ in range(10)]
        total = math.log(sum(map(math.exp, logits)))
        return [logit - total for logit in logits]

    def probability(self, ids: tuple[int, ...], legal: list[tuple[int, ...]]) -> float:
        """Of a label, token by token, with the probabilities of legal tokens scaled to a sum of one."""
        result = 1.0
        for depth in range(len(ids) + 1):
            beginning = ids[:depth]
            log_probabilities = self.log_probabilities(beginning)
            continued = {
                other[depth] if len(other) > depth else None for other in legal if other[:depth] == beginning
            }

            def weight(token: int | None, logs: list[float] = log_probabilities) -> float:
                return sum(math.exp(logs[i]) for i in ((token,) if token is not None else END))

            own = ids[depth] if depth < len(ids) else None
            result *= weight(own) / sum(map(weight, continued))
        return result


def found(search: Search, model: Model) -> int:
    """Requests until the label was found."""
    for requests in itertools.count():
        if search.fork is None:
            return requests
        logs = model.log_probabilities(search.fork.so_far)
        search.answer([logs[token_id] for token_id in search.fork.asked])
    raise AssertionError


@given(LABELS, st.integers(0, 10**6), st.sampled_from([0.5, 3.0, 12.0]))
def test_the_label_is_the_most_probable_of_all_and_its_probability_is_counted_right(
    all_ids: list[tuple[int, ...]], seed: int, sharpness: float
) -> None:
    labels, model = named(all_ids), Model(seed, sharpness)
    search = Search(fork_of(labels, ends=END, where="x"))
    found(search, model)
    probabilities = {label: model.probability(ids, all_ids) for label, ids in labels.items()}
    assert math.fsum(probabilities.values()) == pytest.approx(1.0)
    assert probabilities[search.label] == pytest.approx(max(probabilities.values()))
    assert search.probability == pytest.approx(probabilities[search.label])


def test_labels_that_begin_with_different_tokens_take_one_request() -> None:
    search = Search(fork_of(named([(1, 2, 3), (2, 2), (3,)]), ends=END, where="x"))
    assert search.fork is not None
    assert (search.fork.so_far, search.fork.asked) == ((), (1, 2, 3))
    assert found(search, Model(1, 3.0)) == 1


def test_nothing_is_asked_about_tokens_that_all_labels_share() -> None:
    fork = fork_of(named([(1, 2, 3), (1, 2, 4), (1, 2, 4, 3)]), ends=END, where="x")
    assert (fork.so_far, fork.asked) == ((1, 2), (3, 4))
    behind = fork.options[1].leads_to
    assert isinstance(behind, Fork)
    assert behind.so_far == (1, 2, 4)
    assert set(behind.asked) == {*END, 3}


def test_a_branch_is_left_for_a_better_label_elsewhere() -> None:
    """Token 1 is the most probable, but its two labels share what it has."""
    search = Search(fork_of({"a": (1, 1), "b": (1, 2), "c": (2,)}, ends=END, where="x"))
    search.answer([math.log(0.55), math.log(0.45)])
    assert search.fork is not None
    assert search.fork.so_far == (1,)
    search.answer([math.log(0.25), math.log(0.25)])
    assert (search.fork, search.label) == (None, "c")
    assert search.probability == pytest.approx(0.45)


@pytest.mark.parametrize("log_probability", [math.nan, -math.inf, math.inf])
def test_a_model_without_probabilities_is_an_error_and_not_a_label(log_probability: float) -> None:
    search = Search(fork_of(named([(1,), (2,)]), ends=END, where="x"))
    with pytest.raises(EngineError, match="gives no probabilities"):
        search.answer([log_probability, log_probability])


def test_labels_that_a_tokenizer_can_not_tell_apart_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"columns\.a\.choice: 'x' and 'y' are the same tokens"):
        fork_of({"x": (1,), "y": (1,)}, ends=END, where="columns.a.choice")
    with pytest.raises(ConfigError, match="no tokens for the label 'y'"):
        fork_of({"x": (1,), "y": ()}, ends=END, where="columns.a.choice")
    with pytest.raises(ConfigError, match="129 labels begin with different tokens"):
        fork_of({str(i): (i,) for i in range(1, 130)}, ends=END, where="columns.a.choice")
