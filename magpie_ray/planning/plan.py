"""What would run, as plain fields for the command `plan`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from magpie_ray import draws
from magpie_ray.config.answer import AnswerConfig
from magpie_ray.config.loading import JobConfig, job_of
from magpie_ray.config.sampling import sampling_choices
from magpie_ray.config.schema import Config
from magpie_ray.config.score import ScoreConfig
from magpie_ray.dataset import partitioning
from magpie_ray.dataset.build_record import BuildRecord
from magpie_ray.planning.estimate import Sample
from magpie_ray.planning.forecast import CostInputs, forecast
from magpie_ray.preflight.build_spec import BuildSpec, choose_grid
from magpie_ray.preflight.target import look_if_reachable
from magpie_ray.publish.hub_paths import MOST_FLAT
from magpie_ray.types import Partition


def make_plan(config: JobConfig, inputs: CostInputs | None = None) -> dict[str, Any]:
    """The build that `config` describes, as far as it can be known without a cluster. Writes nothing.

    Where the cluster decides on num_actors or the device, the plan takes the sample's, or one actor on a GPU
    (`assumptions` says so).
    """
    inputs = inputs or CostInputs()
    target = look_if_reachable(config)
    build_spec, committed = target.build_spec, target.committed
    config = build_spec.config
    num_actors, device, assumptions = _assume_cluster(config, inputs.sample)
    if isinstance(config, Config) and config.inputs.pick == "at_random":
        assumptions.append("the first prompt is that of the first input; row 0 draws its own")
    if committed:
        record, pending = committed.build, list(committed.pending)
    else:
        record, assumed = _new_record(build_spec, num_actors=num_actors, device=device)
        pending = partitioning.pending(config.num_rows, record.rows_per_partition, ())
        assumptions += assumed
    cost = forecast(
        build_spec,
        inputs,
        rows=partitioning.rows_in(pending),
        files=len(pending),
        num_actors=min(num_actors, max(1, len(pending))),
        device=device,
    )
    return {
        "job": job_of(config),
        "output": target.storage.url,
        "exists": committed is not None,
        "fingerprint": record.fingerprint if build_spec.has_seed else None,
        "model": {"name": build_spec.model.name, "commit": build_spec.model.commit},
        "num_rows": config.num_rows,
        "messages_per_row": config.messages_per_row,
        "rows_committed": sum(r.rows for r in committed.records) if committed else 0,
        "rows_pending": partitioning.rows_in(pending),
        "rows_per_partition": record.rows_per_partition,
        "partitions_pending": len(pending),
        "num_actors": num_actors,
        "shards": [
            {"partitions": len(shard), "rows": partitioning.rows_in(shard)}
            for shard in partitioning.shards(pending, num_actors)
        ],
        "device": device,
        "columns": build_spec.schema.names,
        **_prompting(build_spec),
        "max_tokens_per_row": config.max_tokens_per_row,
        "model_size": asdict(cost.size) if cost.size else None,
        "engine": asdict(cost.fit) | {"fits": cost.fit.fits} if cost.fit else None,
        "sample": asdict(inputs.sample) if inputs.sample else None,
        "estimate": asdict(cost.estimate) if cost.estimate else None,
        "assumptions": [*assumptions, *cost.assumptions],
        "warnings": [*_unseen(target.unseen), *build_spec.warnings, *cost.warnings, *_many_files(pending)],
        "config": {"num_rows": config.num_rows, **config.recorded()},
    }


def _new_record(build_spec: BuildSpec, *, num_actors: int, device: str) -> tuple[BuildRecord, list[str]]:
    """The record of a build that has not begun, and a sentence for what its first run will choose."""
    assumptions = []
    if build_spec.config.output.rows_per_partition == "auto":
        assumptions.append(
            "output.rows_per_partition is auto: chosen for these actors, fixed by the first run"
        )
    if not build_spec.has_seed:
        assumptions.append(
            "seed is auto: drawn when the build begins, so the fingerprint is not known yet"
            + (", and another system prompt may come first" if len(build_spec.prompts) > 1 else "")
        )
    return build_spec.record(choose_grid(build_spec, num_actors=num_actors, device=device)), assumptions


def _assume_cluster(config: JobConfig, sample: Sample | None) -> tuple[int, str, list[str]]:
    """The number of actors, their device, and a sentence for each of the two that is assumed."""
    assumptions = []
    num_actors, device, job = config.cluster.num_actors, str(config.engine.device), job_of(config)
    if num_actors == "auto":
        num_actors = sample.engines if sample else 1
        assumptions.append(
            f"cluster.num_actors is auto: {num_actors}; `{job}` starts as many as the cluster holds"
        )
    if device == "auto":
        device = sample.device if sample else "cuda"
        assumptions.append(f"engine.device is auto: {device}; `{job}` looks at the cluster")
    return num_actors, device, assumptions


def _unseen(reason: str) -> list[str]:
    """A warning where the output could not be looked at."""
    return [f"not looked at, so this is the plan of a new build: {reason}"] if reason else []


def _many_files(pending: Sequence[Partition]) -> list[str]:
    """A warning where one folder of the Hugging Face hub does not hold the files."""
    files = len(pending)
    if files <= MOST_FLAT:
        return []
    return [
        f"{files:,} files: `push` puts them in sub-folders, because the Hugging Face hub takes 10,000 in a "
        "folder. A larger output.rows_per_partition makes fewer files, of which a lost actor loses more"
    ]


def _inputs(build_spec: BuildSpec) -> dict[str, Any] | None:
    """What the rows' inputs are; None where they have none."""
    config, inputs = build_spec.config, build_spec.inputs
    if inputs is None or not isinstance(config, Config):
        return None
    keys = config.inputs
    return {
        "path": keys.path,
        "format": inputs.format,
        "files": len(inputs.files),
        "number": inputs.number,
        "with_system_prompt": inputs.prompts,
        "pick": keys.pick,
        "weight": keys.weight,
        "content": inputs.content,
    }


def _source(build_spec: BuildSpec) -> dict[str, Any] | None:
    """What a pass goes over; None for `generate`."""
    config, source = build_spec.config, build_spec.source
    if source is None or isinstance(config, Config):
        return None
    return {
        "path": config.source.path,
        "kind": source.kind,
        "files": len(source.files),
        "rows": source.num_rows,
        "identity": source.identity,
        "answers": config.n if isinstance(config, AnswerConfig) else 0,
    }


def _prompting(build_spec: BuildSpec) -> dict[str, Any]:
    """The prompts that rows start with, and the tokens and strings that end their messages."""
    config, form = build_spec.config, build_spec.chat_format
    start = build_spec.first_input
    if start is None:
        first = draws.system_prompt_of(0, seed=config.seed_number, prompts=build_spec.prompts)
        start = build_spec.form.start(first.text if first else None)
    is_mixed = not isinstance(config, ScoreConfig) and config.sampling.is_mixed
    return {
        "inputs": _inputs(build_spec),
        "source": _source(build_spec),
        "system_prompts": [
            {"key": p.key, "text": p.text, "weight": round(p.weight, 6)} for p in build_spec.prompts
        ],
        "samplings": [
            {"settings": settings, "weight": round(weight, 6)}
            for settings, weight in (sampling_choices(config.identity()) if is_mixed else ())
        ],
        "first_prompt": start.text,
        "first_prompt_ids": list(start.ids),
        "user_stop_token_ids": list(form.user_stop_token_ids) if form else [],
        "assistant_stop_token_ids": list(form.assistant_stop_token_ids) if form else [],
        "stop_strings": list(form.stop_strings) if form else [],
    }
