"""Whole objects under one output URL."""

from magpie_ray.storage.storage import ObjectNotFoundError, Storage, StoredObject

__all__ = ["ObjectNotFoundError", "Storage", "StoredObject"]
