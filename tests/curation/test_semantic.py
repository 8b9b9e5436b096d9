"""The search for near-duplicates by embeddings."""

import numpy as np
import numpy.typing as npt
import pytest

from magpie_ray.curation.neighbours import NOWHERE, Neighbours
from magpie_ray.curation.semantic import Vectors, find_near_vectors
from magpie_ray.errors import ConfigError

FIELDS = ("distances", "similar", "repeats", "against_distances", "against", "against_sets")


def some_vectors(rows: int, dimensions: int = 32, seed: int = 0) -> npt.NDArray[np.float32]:
    """Vectors around a few centres, some of them very near, some equal."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, rows // 10), dimensions))
    noise = rng.standard_normal((rows, dimensions)) * rng.choice([0, 0.1, 0.5], (rows, 1))
    return (centres[rng.integers(0, len(centres), rows)] + noise).astype(np.float32)


def found(
    values: npt.NDArray[np.float32],
    *,
    others: int = 0,
    facts: list[int] | None = None,
    exact_items: int = 10**6,
) -> Neighbours:
    """others: so many rows, at the end, are of another set."""
    ours = len(values) - others
    vectors = Vectors(
        sets=np.repeat(np.array([0, 1], np.int32), [ours, others]),
        row_ids=np.concatenate([np.arange(ours), np.arange(others)]),
        values=values.copy(),
        facts=np.array(facts if facts is not None else [0] * len(values), np.uint64),
    )
    return find_near_vectors(vectors, threshold=0.05, exact_items=exact_items)


def test_distances_are_one_minus_the_cosine() -> None:
    values = np.array([[1, 0], [2, 0], [1, 1], [0, 3], [1, 0.01]], np.float32)
    near = found(values)
    assert near.distances.tolist() == pytest.approx([0, 0, 0.285858, 0.292893, 0.00005], abs=1e-5)
    assert near.similar.tolist() == [1, 0, 4, 2, 0]
    assert near.repeats.tolist() == [0, 1, 0, 0, 2]


def test_all_rows_are_as_brute_force_has_them() -> None:
    values = some_vectors(300)
    near = found(values, others=50)
    unit = values.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distances = 1 - unit[:250] @ unit.T
    distances[np.arange(250), np.arange(250)] = 9
    assert np.abs(near.distances - distances[:, :250].min(axis=1)).max() < 2e-6
    assert np.abs(near.against_distances - distances[:, 250:].min(axis=1)).max() < 2e-6
    nearest = distances[np.arange(250), near.similar]
    assert np.abs(nearest - distances[:, :250].min(axis=1)).max() < 2e-6
    joined = distances[:, :250] <= 0.05
    cluster = np.arange(250)
    while True:
        smaller = np.where(joined, cluster[None, :], 250).min(axis=1)
        smaller = np.minimum(cluster, smaller)
        if (smaller == cluster).all():
            break
        cluster = smaller
    assert ((near.repeats == 0) == (cluster == np.arange(250))).all()


def test_an_index_finds_what_all_pairs_have() -> None:
    values = some_vectors(3_000)
    exact, indexed = found(values, others=500), found(values, others=500, exact_items=0)
    for field in FIELDS:
        assert (getattr(exact, field) == getattr(indexed, field)).mean() > 0.99, field


def test_rows_whose_numbers_differ_are_not_near() -> None:
    values = np.array([[1, 0], [1, 0], [1, 0], [1, 0]], np.float32)
    near = found(values, others=1, facts=[5, 6, 5, 0])
    assert near.repeats.tolist() == [0, 0, 1]
    assert near.similar.tolist() == [2, NOWHERE, 0]
    assert near.against.tolist() == [0, 0, 0]


def test_the_order_of_equal_vectors_is_that_of_rows() -> None:
    values = np.repeat(some_vectors(20, seed=4), 3, axis=0)
    near = found(values)
    assert near.similar.max() < 60
    for row in range(60):
        twins = [other for other in range(60) if other != row and (values[other] == values[row]).all()]
        assert near.distances[row] == 0
        assert near.similar[row] == min(twins)


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_vector_without_direction_is_named(value: float) -> None:
    values = some_vectors(5)
    values[3] = value
    with pytest.raises(ConfigError, match="the vector of row 3 has no direction"):
        found(values)
