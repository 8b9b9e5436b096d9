"""Magpie datasets at scale: Ray actors with vLLM engines write exact rows of Parquet to object storage."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from magpie_ray.config import AnswerConfig, Config, ScoreConfig, load_config, load_job, parse_config
from magpie_ray.errors import MagpieError

if TYPE_CHECKING:
    from magpie_ray.chat_format import ChatFormat, derive
    from magpie_ray.coordinator.run import BuildResult
    from magpie_ray.driver.run_build import answer, generate, score

__all__ = [
    "AnswerConfig",
    "BuildResult",
    "ChatFormat",
    "Config",
    "MagpieError",
    "ScoreConfig",
    "answer",
    "derive",
    "generate",
    "load_config",
    "load_job",
    "parse_config",
    "score",
]

# Imported at the first use: a config needs neither Ray nor a tokenizer.
_LAZY = {
    "BuildResult": "magpie_ray.coordinator.run",
    "ChatFormat": "magpie_ray.chat_format",
    "answer": "magpie_ray.driver.run_build",
    "derive": "magpie_ray.chat_format",
    "generate": "magpie_ray.driver.run_build",
    "score": "magpie_ray.driver.run_build",
}


def __getattr__(name: str) -> Any:
    if module := _LAZY.get(name):
        return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
