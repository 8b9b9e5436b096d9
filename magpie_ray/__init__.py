"""Magpie datasets at scale: Ray actors with vLLM engines write exact rows of Parquet to object storage."""

from typing import TYPE_CHECKING, Any

from magpie_ray.config import Config, load_config

if TYPE_CHECKING:
    from magpie_ray.driver import generate
    from magpie_ray.run import BuildResult

__all__ = ["BuildResult", "Config", "generate", "load_config"]


def __getattr__(name: str) -> Any:
    # Ray is imported only by those who run a job.
    if name == "generate":
        from magpie_ray.driver import generate

        return generate
    if name == "BuildResult":
        from magpie_ray.run import BuildResult

        return BuildResult
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
