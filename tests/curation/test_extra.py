"""Libraries of the extra `curate`."""

import math

import pytest

from magpie_ray.curation.extra import curate_library
from magpie_ray.errors import PreflightError


def test_a_library_that_is_missing_names_the_extra() -> None:
    assert curate_library("math") is math
    with pytest.raises(PreflightError, match=r"^no_such_library is not installed.*magpie-ray\[curate\]"):
        curate_library("no_such_library")
