"""The commands that make a build, or tell what it would be: generate, plan, template."""

import logging
import time
from typing import Annotated

import psutil
import typer

from magpie_ray.cli.options import AsJson, ConfigPath, OnExisting, Overrides, load, parse_seconds
from magpie_ray.cli.printing import out, show_fields
from magpie_ray.cli.views import results
from magpie_ray.cli.views.plan import plan_text
from magpie_ray.utils import logs
from magpie_ray.utils.logs import LogStyle

log = logging.getLogger(__name__)


def generate(
    config: ConfigPath,
    overrides: Overrides = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log all that the job, its actors and vLLM do.")
    ] = False,
    json_logs: Annotated[bool, typer.Option("--json-logs", help="Log one JSON object a line.")] = False,
    if_exists: Annotated[
        OnExisting,
        typer.Option(
            help="A build that is there: go on with it, leave it alone when complete or worked on, or refuse."
        ),
    ] = OnExisting.RESUME,
) -> None:
    """Run, or resume, a build. The same command again goes on where the last one ended."""
    logs.set_up(LogStyle(verbose=verbose, json=json_logs))
    parsed = load(config, overrides)
    from magpie_ray.driver.run_build import generate as run  # Ray takes a second to import

    result = run(parsed, if_exists=if_exists.value)
    if json_logs:
        state = "left alone" if result.left_alone else "complete"
        log.info("the build is %s", state, extra=results.result_fields(result))
    else:
        out(results.result_text(result))


def plan(
    config: ConfigPath,
    overrides: Overrides = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show how the model lies on this GPU, e.g. H100-80GB.")
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(metavar="N", min=0.001, help="What one engine writes, if you know.")
    ] = None,
    sample: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Measure: make rows of the build here for so long, e.g. 60s or 5m."
        ),
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="In whatever money.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what would run and what it takes: partitions, prompt, memory, time. Writes nothing."""
    # A sample counts the start of this process too, as the user's clock does.
    began = time.monotonic() - (time.time() - psutil.Process().create_time())
    logs.set_up(LogStyle())
    seconds = None if sample is None else parse_seconds(sample)
    parsed = load(config, overrides)
    from magpie_ray.planning.forecast import Given
    from magpie_ray.planning.gpus import find_gpu
    from magpie_ray.planning.plan import make_plan  # tokenizers take seconds to import

    card = None if gpu is None else find_gpu(gpu)
    taken = None
    if seconds is not None:
        from magpie_ray.driver.sample import take_sample  # Ray takes a second to import

        taken = take_sample(parsed, seconds, began=began)
    given = Given(
        gpu=card, tokens_per_second=tokens_per_second, price_per_gpu_hour=price_per_gpu_hour, sample=taken
    )
    show_fields(make_plan(parsed, given), as_json=as_json, text=plan_text)


def template(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="builtin:tiny-chat, a folder, a Hugging Face id.")
    ],
    system: Annotated[str | None, typer.Option(help="A system prompt to show the prefix with.")] = None,
    thinking: Annotated[
        bool | None,
        typer.Option(
            "--thinking/--no-thinking", help="As a build with model.thinking: true, or false, has it."
        ),
    ] = None,
    own_format: Annotated[
        str | None,
        typer.Option(
            "--chat-format", metavar="MODULE:NAME", help="Your own function, as in model.chat_format."
        ),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Commit, branch or tag of the model.")] = None,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the model's own Python code run on this machine.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the chat format derived from a model's tokenizer."""
    from magpie_ray.chat_format.describe import make_template  # tokenizers take seconds to import

    described = make_template(
        model,
        system=system,
        thinking=thinking,
        own_format=own_format,
        revision=revision,
        trust_remote_code=trust_remote_code,
    )
    show_fields(described, as_json=as_json, text=results.template_text)
