"""The commands that create a build or show what it would be: generate, answer, score, plan,
preview, template."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import psutil
import typer

from magpie_ray.cli.options import AsJson, ConfigPath, Overrides, PricePerGpuHour, load, parse_seconds
from magpie_ray.cli.printing import PipedConsole, out, paged, quiet_when_closed, show_fields, stage
from magpie_ray.cli.views.plan import plan_text
from magpie_ray.cli.views.results import result_text, template_text
from magpie_ray.errors import GenerationFailedError
from magpie_ray.types import IfExists
from magpie_ray.utils import logs
from magpie_ray.utils.awake import awake_seconds
from magpie_ray.utils.logs import LogStyle
from magpie_ray.utils.text import counted

log = logging.getLogger(__name__)


Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Log everything that the job, its actors and vLLM do.")
]
JsonLogs = Annotated[bool, typer.Option("--json-logs", help="Log one JSON object per line.")]
WhatIfExists = Annotated[
    IfExists,
    typer.Option(help="If the build exists: resume it; skip it when it is complete or running; or fail."),
]


def _command(job: str | None, summary: str) -> Callable[..., None]:
    """The command that runs a job; all take the same options. None: the job that the config is of."""

    def run(
        config: ConfigPath,
        overrides: Overrides = None,
        verbose: Verbose = False,
        json_logs: JsonLogs = False,
        if_exists: WhatIfExists = "resume",
    ) -> None:
        _run(job, config, overrides, LogStyle(verbose=verbose, json=json_logs), if_exists)

    run.__name__, run.__doc__ = job or "job", summary
    return run


generate = _command(
    "generate", "Run a build, or resume it: the same command continues where the last run ended."
)
answer = _command(
    "answer", "Answer the rows of a data set: with another model, several times, or with further turns."
)
score = _command("score", "Give each row of a data set labels, rewards or embeddings, by another model.")
any_job = _command(None, "Run the job that the config is of: generate, answer or score.")


def _run(
    job: str | None, config: Path, overrides: list[str] | None, style: LogStyle, if_exists: IfExists
) -> None:
    logs.set_up(style)
    parsed = load(config, overrides, job)
    log.info("rows of %s for %s", parsed.model.name, parsed.output.path)
    from magpie_ray.driver.run_build import run_job  # Ray takes a second to import

    result = run_job(parsed, if_exists=if_exists)
    if style.json:
        state = "left alone" if result.left_alone else "complete"
        fields = asdict(result) | {"engine_use": result.engine_use.recorded()}
        log.info("the build is %s", state, extra=fields)
    else:
        out(result_text(result, verbose=style.verbose))


def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="Estimate how the model fits this GPU, e.g. H100-80GB.")
    ] = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(metavar="N", min=0.001, help="Tokens/s that one engine generates, if known."),
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Generate rows here for this long, e.g. 60s or 5m, and measure."),
    ] = None,
    price_per_gpu_hour: PricePerGpuHour = None,
    full: Annotated[
        bool, typer.Option("--full", "-v", help="Also show all prompts, ids, assumptions and the config.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what a run would do and need: partitions, prompt, memory, time. Writes nothing."""
    # A sample's start time includes the start of this process, as the user's clock does.
    began = awake_seconds() - (time.time() - psutil.Process().create_time())
    logs.set_up(LogStyle())
    seconds = None if sample is None else parse_seconds(sample)
    parsed = load(config, overrides)
    from magpie_ray.planning.forecast import CostInputs
    from magpie_ray.planning.gpus import find_gpu

    card = None if gpu is None else find_gpu(gpu)
    taken = None
    if seconds is not None:
        from magpie_ray.driver.sample import take_sample  # Ray takes a second to import

        taken = take_sample(parsed, seconds, began=began)
    inputs = CostInputs(
        gpu=card, tokens_per_second=tokens_per_second, price_per_gpu_hour=price_per_gpu_hour, sample=taken
    )
    with stage(f"reading {parsed.model.name} and what is at the output"):
        from magpie_ray.planning.plan import make_plan  # tokenizers take seconds to import

        fields = make_plan(parsed, inputs)
    show_fields(fields, as_json=as_json, text=partial(plan_text, full=full))


def preview(
    config: ConfigPath,
    overrides: Overrides = None,
    rows: Annotated[int, typer.Option("--rows", "-n", min=1, max=1000, help="Number of rows.")] = 5,
    pager: Annotated[bool, typer.Option("--pager/--no-pager", help="Use a pager in a terminal.")] = True,
) -> None:
    """Make a few rows with one engine on this machine, show them and rejected messages. Writes nothing."""
    logs.set_up(LogStyle())
    parsed = load(config, overrides)
    log.info("a preview of %s of %s", counted(rows, "row"), parsed.model.name)
    from magpie_ray.cli.views.rows import reject_panel, row_panel
    from magpie_ray.driver.preview import take_preview  # Ray takes a second to import

    found = take_preview(parsed, rows)
    with quiet_when_closed():
        console = PipedConsole()
        with paged(console) if pager else nullcontext():
            for panel in (*map(row_panel, found.rows), *map(reject_panel, found.rejects)):
                console.print(panel)
    if found.problem:
        raise GenerationFailedError(found.problem)


def template(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="builtin:tiny-chat, a folder, or a Hugging Face id.")
    ],
    system: Annotated[str | None, typer.Option(help="Show the prefix with this system prompt.")] = None,
    thinking: Annotated[
        bool | None,
        typer.Option("--thinking/--no-thinking", help="The format with model.thinking true, or false."),
    ] = None,
    own_format: Annotated[
        str | None,
        typer.Option(
            "--chat-format", metavar="MODULE:NAME", help="Your own function, as in model.chat_format."
        ),
    ] = None,
    template_name: Annotated[
        str | None,
        typer.Option(
            "--chat-template-name", metavar="NAME", help="Which of the model's chat templates, if several."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of the model.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Allow the model's own Python code to run here.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the chat format derived from a model's tokenizer."""
    from magpie_ray.chat_format.describe import make_template  # tokenizers take seconds to import

    fields = make_template(
        model,
        system=system,
        thinking=thinking,
        own_format=own_format,
        template_name=template_name,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    show_fields(fields, as_json=as_json, text=template_text)
