"""Inference engines behind one protocol."""

from magpie_ray.engine.protocol import Engine, EngineStats

__all__ = ["Engine", "EngineStats"]
