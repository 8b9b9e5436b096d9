"""The two free-form mappings of a config: `engine.extra` and `output.storage_options`.

Owns: the rule that they hold plain values only and that `engine.extra` takes no name which another key owns,
and the list of its names that can't change the text a model writes.
"""

import copy
import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from magpie_ray.config.fields import as_number, is_text
from magpie_ray.config.problems import BadValueError, Problem, show
from magpie_ray.utils.redaction import is_secret_name, redact_secrets

_MAX_DEPTH = 20
_MAX_VALUES = 10_000

# Arguments of vLLM's engine that other sections have a key for.
_OWNERS = {
    "model": "model.name",
    "model_id": "model.name",
    "tokenizer": "model.name",
    "revision": "model.revision",
    "tokenizer_revision": "model.revision",
    "code_revision": "model.revision",
    "trust_remote_code": "model.trust_remote_code",
    "seed": "seed",
    "data_parallel_size": "cluster.num_actors",
    "temperature": "sampling.user.temperature",
    "top_p": "sampling.user.top_p",
    "max_tokens": "sampling.user.max_tokens",
}

# Arguments that only decide speed, memory and logging. All others count as part of the build: refusing a
# resume by mistake is better than mixing two models in one dataset.
_TUNING = frozenset(
    {
        "async_scheduling",
        "block_size",
        "compilation_config",
        "cpu_offload_gb",
        "disable_custom_all_reduce",
        "disable_log_stats",
        "distributed_executor_backend",
        "download_dir",
        "enable_chunked_prefill",
        "enable_expert_parallel",
        "enable_log_requests",
        "enable_prefix_caching",
        "enforce_eager",
        "kv_cache_memory_bytes",
        "load_format",
        "long_prefill_token_threshold",
        "max_long_partial_prefills",
        "max_num_batched_tokens",
        "max_num_partial_prefills",
        "max_parallel_loading_workers",
        "num_gpu_blocks_override",
        "scheduling_policy",
        "swap_space",
        "worker_cls",
    }
)


# Arguments under which vLLM can't apply first_tokens: it refuses custom logits processors then, or takes a
# model runner with another interface for them.
_WITHOUT_FIRST_TOKENS = {
    **dict.fromkeys(
        ("speculative_config", "spec_method", "spec_model", "spec_tokens"), "under speculative decoding"
    ),
    **dict.fromkeys(
        ("watermark_config", "diffusion_config", "return_sampling_mask", "enable_trace_replay"),
        "in its model runner V2, which this needs",
    ),
}


def first_tokens_refused_by(extra: dict[str, object]) -> tuple[str, str] | None:
    """The first name in `engine.extra` under which vLLM can't apply first_tokens, and the reason."""
    return next(((name, why) for name, why in _WITHOUT_FIRST_TOKENS.items() if extra.get(name)), None)


def identity_of(extra: dict[str, object]) -> dict[str, object]:
    """The part of `engine.extra` that the fingerprint covers, without values that look like secrets."""
    return {
        name: redact_secrets(value, name)
        for name, value in extra.items()
        if name not in _TUNING and not is_secret_name(name)
    }


def engine_extra(value: object, *, section: Collection[str]) -> dict[str, object]:
    """A copy of the mapping `engine.extra`. It can't repeat `section`, the keys of the section `engine`.

    Raises:
        BadValueError: with every problem found in it.
    """
    problems = []
    for name, item in value.items() if isinstance(value, dict) else ():
        argument = str(name).replace("-", "_")
        if owner := f"engine.{argument}" if argument in section else _OWNERS.get(argument):
            problems.append(Problem(at=(name,), value=item, must=f"must be set with {owner}"))
        elif isinstance(name, str) and argument != name:
            problems.append(Problem(at=(name,), value=item, must=f"must be written as {argument}"))
    return plain_mapping(value, has_numbers=True, names=problems)


def plain_mapping(
    value: Any, *, has_numbers: bool = False, names: Iterable[Problem] = ()
) -> dict[str, object]:
    """A copy of a mapping that JSON can hold, too; null is an empty one.

    has_numbers: whether text that looks like a number in exponent notation is a mistake. names: problems that
    the caller has found with its names.

    Raises:
        BadValueError: with every problem found in it.
    """
    if problems := [*_problems(value, has_numbers=has_numbers), *names]:
        raise BadValueError(*problems)
    return copy.deepcopy(value or {})


def _problems(value: object, *, has_numbers: bool) -> Iterator[Problem]:
    """What JSON can't hold. A few lines of YAML with aliases can mean a cycle, so all is bounded."""
    if value is not None and not isinstance(value, dict):
        yield Problem(value=value, must="must be a mapping of names to values")
        return
    for count, (at, item, is_named) in enumerate(_items(value), start=1):
        if not is_named:
            yield Problem(at=at, value=item, must="must be under a name that is text; put the name in quotes")
        elif len(at) > _MAX_DEPTH or count > _MAX_VALUES:
            must = f"must be at most {_MAX_DEPTH} levels deep, with at most {_MAX_VALUES} values"
            yield Problem(at=at[:1], value=item, must=must)
            return
        elif not _is_plain(item):
            must = "must be text, a number, true, false, null, a list or a mapping"
            yield Problem(at=at, value=item, must=must)
        elif has_numbers and isinstance(item, str) and as_number(item) is not None:
            # No field type says that a number is meant here, and the engine would get text.
            must = "must be written with a dot and a sign, as 1.0e+6 is: YAML reads 1e6 as text"
            yield Problem(at=at, value=item, must=must)


def _items(value: object, at: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object, bool]]:
    """All values in a mapping or list, each before those in it: path, value, whether its name is text."""
    pairs: Iterable[tuple[object, object]] = ()
    if isinstance(value, dict):
        pairs = value.items()
    elif isinstance(value, list):
        pairs = ((str(index), item) for index, item in enumerate(value))
    for name, item in pairs:
        if isinstance(name, str) and is_text(name):
            yield (*at, name), item, True
            yield from _items(item, (*at, name))
        else:
            yield (*at, show(name)), item, False


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip() or is_text(value)
    if isinstance(value, int):
        return abs(value) < 2**63
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, dict | list)
