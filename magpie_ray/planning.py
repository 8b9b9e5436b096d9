"""What would run: plain fields for the plan command."""

from dataclasses import asdict
from typing import Any

from magpie_ray import build, plan, preflight, schedule
from magpie_ray.blueprint import draw_up
from magpie_ray.config import Config
from magpie_ray.config_sampling import sampling_choices
from magpie_ray.errors import PreflightError, StorageError
from magpie_ray.forecast import Given, forecast
from magpie_ray.storage import READ_SECONDS


def make_plan(config: Config, given: Given | None = None) -> dict[str, Any]:
    """The build that `config` describes, as far as it can be known without a cluster; writes nothing.

    Where num_actors or the device are left to the cluster, one actor is assumed, or what a sample had
    (`assumptions` says so).
    """
    given = given or Given()
    config, tick = schedule.resolve(config, claim=False)
    storage = preflight.open_output(config, retry_seconds=READ_SECONDS)
    try:
        existing = build.read_build(storage)
    except StorageError as exc:
        raise PreflightError(f"The output {storage.url} can't be read. {exc}") from exc
    blueprint = draw_up(config, existing, tick=tick)
    config = blueprint.config
    assumptions = list[str]()
    num_actors = config.cluster.num_actors
    if num_actors == "auto":
        num_actors = given.sample.engines if given.sample else 1
        assumptions.append(
            f"cluster.num_actors is auto: {num_actors}; `generate` counts what the cluster holds"
        )
    device: str = config.engine.device
    if device == "auto":
        device = given.sample.device if given.sample else "cuda"
        assumptions.append(f"engine.device is auto: {device}; `generate` looks at the cluster")
    if existing:
        grid = existing.rows_per_partition
    else:
        grid = preflight.choose_grid(config, num_actors=num_actors, device=device)
        if config.output.rows_per_partition == "auto":
            assumptions.append(
                "output.rows_per_partition is auto: chosen for these actors, fixed by the first run"
            )
    committed = preflight.check_existing(config, blueprint, existing, storage) if existing else None
    pending = committed.pending(config.num_rows) if committed else plan.pending(config.num_rows, grid, ())
    shards = plan.shards(pending, num_actors)
    form = blueprint.chat_format
    first = plan.system_prompt_of(0, seed=config.seed_number, prompts=blueprint.prompts)
    first_text = first.text if first else None
    rows_pending = sum(p.num_rows for p in pending)
    cost = forecast(
        blueprint,
        given,
        rows=rows_pending,
        files=len(pending),
        num_actors=min(num_actors, max(1, len(pending))),
        device=device,
    )
    return {
        "output": storage.url,
        "exists": existing is not None,
        "fingerprint": (existing or blueprint.record(grid)).fingerprint,
        "model": {"name": blueprint.model.name, "commit": blueprint.model.commit},
        "num_rows": config.num_rows,
        "messages_per_row": config.messages_per_row,
        "rows_committed": sum(r.rows for r in committed.records) if committed else 0,
        "rows_pending": rows_pending,
        "rows_per_partition": grid,
        "partitions_pending": len(pending),
        "num_actors": num_actors,
        "shards": [{"partitions": len(s), "rows": sum(p.num_rows for p in s)} for s in shards],
        "device": device,
        "columns": list(config.columns()),
        "system_prompts": [
            {"key": p.key, "text": p.text, "weight": round(p.weight, 6)} for p in blueprint.prompts
        ],
        "samplings": [
            {"settings": text, "weight": round(weight, 6)}
            for text, weight in sampling_choices(config.identity())
            if config.sampling.is_mixed
        ],
        "first_prompt": form.prefix_text(first_text),
        "first_prompt_ids": list(form.prefix(first_text)),
        "user_stop_token_ids": list(form.user_stop_token_ids),
        "assistant_stop_token_ids": list(form.assistant_stop_token_ids),
        "stop_strings": list(form.stop_strings),
        "max_tokens_per_row": preflight.max_tokens_per_row(config),
        "model_size": asdict(cost.size) if cost.size else None,
        "engine": asdict(cost.fit) | {"fits": cost.fit.fits} if cost.fit else None,
        "sample": asdict(given.sample) if given.sample else None,
        "estimate": asdict(cost.estimate) if cost.estimate else None,
        "assumptions": [*assumptions, *cost.assumptions],
        "warnings": [*blueprint.warnings, *cost.warnings],
        "config": {"num_rows": config.num_rows, **config.recorded()},
    }
