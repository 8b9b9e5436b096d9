"""What the user asks for."""

from magpie_ray.config.schema import Config, load_config, parse_config

__all__ = ["Config", "load_config", "parse_config"]
