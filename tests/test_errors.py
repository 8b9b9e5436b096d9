"""Every error is one message, an exit code, and survives the way from an actor to the driver."""

import pickle

import pytest

import magpie_ray
from magpie_ray import errors
from magpie_ray.errors import MagpieError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MagpieError)]


@pytest.mark.parametrize("kind", ALL)
def test_errors_survive_pickling(kind: type[MagpieError]) -> None:
    back = pickle.loads(pickle.dumps(kind("what went wrong")))
    assert (type(back), str(back)) == (kind, "what went wrong")


def test_exit_codes_say_whose_turn_it_is() -> None:
    codes = {kind.__name__: kind.exit_code for kind in ALL}
    usage = {
        "ConfigError",
        "FormatError",
        "ModelError",
        "PreflightError",
        "BuildNotFoundError",
        "BuildExistsError",
        "BuildMismatchError",
        "SourceError",
    }
    assert {name for name, code in codes.items() if code == 2} == usage
    assert {name for name, code in codes.items() if code == 3} == {"InterruptedJobError"}
    assert all(code == 1 for name, code in codes.items() if name not in {*usage, "InterruptedJobError"})


def test_the_base_of_all_errors_is_a_part_of_the_public_face() -> None:
    assert magpie_ray.MagpieError is MagpieError
    assert all(hasattr(magpie_ray, name) for name in magpie_ray.__all__)
