"""The names and types of `engine.extra`, compared with what the source of the installed vLLM declares; and
values that vLLM refuses beside others.

Invariant: what the source does not say plainly is no mistake; vLLM checks all values once more when an engine
starts.
"""

import ast
import difflib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from magpie_ray.config.loading import JobConfig
from magpie_ray.config.problems import show
from magpie_ray.config.score import ScoreConfig
from magpie_ray.errors import ConfigError
from magpie_ray.preflight.vllm_source import Declared, fields_of, type_of
from magpie_ray.utils.redaction import redact_secrets

_ARGUMENTS = "engine/arg_utils.py"
# Mappings that vLLM declares without saying of what, and the class that it makes of each.
_BECOMES = {"speculative_config": ("config/speculative.py", "SpeculativeConfig")}


def installed_vllm() -> Path | None:
    """The folder of vLLM's package on this machine. It is not imported."""
    spec = importlib.util.find_spec("vllm")
    folders = spec.submodule_search_locations if spec else None
    return Path(folders[0]) if folders else None


def check_engine_extra(
    extra: Mapping[str, object], *, find: Callable[[], Path | None] = installed_vllm
) -> None:
    """ConfigError for a name that vLLM's engine does not take, or a value of another type than it declares.

    Where vLLM is not installed, nothing is known.
    """
    folder = find() if extra else None
    declared = fields_of("EngineArgs", folder / _ARGUMENTS) if folder else {}
    if not folder or not declared:
        return
    problems = []
    for name, value in extra.items():
        if name not in declared:
            problems.append(
                f"engine.extra.{name}: the installed vLLM's engine has no such argument"
                f"{_nearest(name, declared)} (`vllm serve --help` lists them; underscores here)"
            )
        elif value is not None:
            problems += _problems_of(name, value, declared[name], folder)
    if problems:
        raise ConfigError("\n  ".join(problems))


def check_batch(config: JobConfig, *, room: int | None) -> None:
    """ConfigError where vLLM would refuse engine.extra.max_num_batched_tokens beside the other settings.

    room: tokens of the longest sequence, engine.max_model_len or the model's context; None where it is not
    known. What depends on the device is left to the engine while engine.device is auto.
    """
    engine = config.engine
    batch, chunked = engine.extra.get("max_num_batched_tokens"), engine.extra.get("enable_chunked_prefill")
    if not isinstance(batch, int):
        return
    key = f"engine.extra.max_num_batched_tokens: got {batch:,}, must be at least"
    seeded = not isinstance(config, ScoreConfig) and config.sampling.reproducible
    if chunked is None and engine.device == "cpu" and seeded:
        chunked, off = False, "requests with seeds on a CPU have their prompts read whole"
    else:
        off = "engine.extra.enable_chunked_prefill is false"
    if chunked is False and room is not None and batch < room:
        lower = "lower engine.max_model_len" if engine.max_model_len else "set engine.max_model_len to less"
        raise ConfigError(
            f"{key} {room:,}, the longest sequence, because {off}: raise it, leave it out, or {lower}"
        )
    if engine.max_num_seqs is not None and batch < engine.max_num_seqs:
        raise ConfigError(
            f"{key} engine.max_num_seqs, which is {engine.max_num_seqs:,}: raise it, or lower that"
        )


def _problems_of(name: str, value: object, declared: Declared, folder: Path) -> Iterator[str]:
    """What vLLM's own check, which pydantic does, would find."""
    shown = show(redact_secrets(value, name))
    inside = type_of(declared)
    if name in _BECOMES and isinstance(value, dict):
        module, of = _BECOMES[name]
        inside = type_of(Declared(ast.Name(of), folder / module))
    if declared.is_loose and isinstance(value, str):
        value = value.lower().replace("-", "_")
    try:
        TypeAdapter(inside).validate_python(value)
    except ValidationError as exc:
        unknown = [error["loc"] for error in exc.errors() if error["type"] == "extra_forbidden"]
        for *within, key in unknown:
            where = ".".join(map(str, ["engine.extra", name, *within]))
            yield f"{where}: the installed vLLM has no {key!r} there"
        if not unknown:
            must = _words(declared, inside, exc)
            yield f"engine.extra.{name}: got {shown}, must be {must}, as the installed vLLM declares"


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f": {near[0]} is one" if near else ""


def _words(declared: Declared, kind: Any, exc: ValidationError) -> str:
    """A type as a reader sees it."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    node = declared.node
    written = ast.literal_eval(node) if isinstance(node, ast.Constant) else ast.unparse(node)
    reasons = dict.fromkeys(error["msg"].removeprefix("Value error, must be ") for error in exc.errors())
    inner = [error for error in exc.errors() if error["loc"] or error["type"] == "value_error"]
    return f"{written} ({'; '.join(reasons)})" if inner else str(written)
