"""Ray: the only importer of ray."""

from magpie_ray.driver.run_build import generate

__all__ = ["generate"]
