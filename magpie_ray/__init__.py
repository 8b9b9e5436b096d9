"""Magpie datasets at scale: Ray actors with vLLM engines write exact rows of Parquet to object storage."""

from typing import TYPE_CHECKING, Any

from magpie_ray.config.schema import Config, load_config, parse_config

if TYPE_CHECKING:
    from magpie_ray.chat_format import ChatFormat, derive
    from magpie_ray.coordinator.run import BuildResult
    from magpie_ray.driver.run_build import generate

__all__ = ["BuildResult", "ChatFormat", "Config", "derive", "generate", "load_config", "parse_config"]


def __getattr__(name: str) -> Any:
    # Ray is imported only by those who run a job.
    if name == "generate":
        from magpie_ray.driver.run_build import generate

        return generate
    if name == "BuildResult":
        from magpie_ray.coordinator.run import BuildResult

        return BuildResult
    if name in ("ChatFormat", "derive"):
        from magpie_ray import chat_format

        return getattr(chat_format, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
