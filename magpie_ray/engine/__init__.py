"""Inference engines behind one protocol."""

from magpie_ray.engine.protocol import Engine

__all__ = ["Engine"]
