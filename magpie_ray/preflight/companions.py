"""What a build has beside its rows for its workers and later runs: a copy of its inputs, or where its source
is."""

from collections.abc import Callable

from magpie_ray.config.schema import Config
from magpie_ray.preflight.build_spec import BuildSpec
from magpie_ray.preflight.inputs import copy_inputs
from magpie_ray.preflight.sources import remember_source
from magpie_ray.storage.storage import Storage


def write_companions(
    build_spec: BuildSpec, storage: Storage, *, stop_requested: Callable[[], bool] = lambda: False
) -> None:
    """Write what is not there yet. InterruptedJobError once a stop is requested."""
    if build_spec.inputs and isinstance(build_spec.config, Config):
        copy_inputs(build_spec.config, build_spec.inputs, storage, stop_requested=stop_requested)
    if build_spec.source:
        remember_source(build_spec.source, storage)
