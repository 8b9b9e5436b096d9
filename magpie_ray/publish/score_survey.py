"""Counts of scores for a survey: labels, how probable they are, and rewards. They add up in any order."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from magpie_ray.config.scoring import PROBABILITY_SUFFIX, ScoreKind, kind_of, names_of
from magpie_ray.dataset.build_record import BuildRecord

# Probabilities are summed in millionths, so that sums do not depend on their order.
MILLION = 1_000_000
# Rewards are counted by so many digits behind the point, of a value between 1 and 10.
_DIGITS = 2


def surveyed_scores(record: BuildRecord) -> dict[str, ScoreKind]:
    """The columns of a score pass that a survey counts, each with its kind; none of other jobs."""
    columns: Any = record.identity.get("columns") if record.identity.get("job") == "score" else None
    kinds = {name: kind_of(column) for name, column in (columns or {}).items()}
    return {name: kind for name, kind in kinds.items() if kind in ("choice", "reward")}


def columns_of_scores(scores: Mapping[str, ScoreKind]) -> list[str]:
    """The columns to read for the counts."""
    return [written for name, kind in scores.items() for written in names_of(name, kind)]


def score_counts(batch: pa.RecordBatch, scores: Mapping[str, ScoreKind]) -> dict[str, dict[str, Any]]:
    """The fields labels, probabilities and rewards of a Survey, for these rows."""
    labels, probabilities, rewards = dict[str, Any](), dict[str, Any](), dict[str, Any]()
    for name, kind in scores.items():
        values = batch.column(name)
        if kind == "choice":
            labels[name] = _counted(values)
            sums = pa.table([values, batch.column(name + PROBABILITY_SUFFIX)], names=["label", "p"])
            probabilities[name] = {
                row["label"]: round(row["p_sum"] * MILLION)
                for row in sums.drop_null().group_by("label").aggregate([("p", "sum")]).to_pylist()
            }
        else:
            values = values.flatten() if pa.types.is_list(values.type) else values
            # Zero is added because minus zero counts apart.
            rewards[name] = _counted(pc.add(pc.round(values.drop_null(), ndigits=_DIGITS), 0.0))
    return {"labels": labels, "probabilities": probabilities, "rewards": rewards}


def _counted(values: pa.Array) -> dict[Any, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(values).to_pylist()}
