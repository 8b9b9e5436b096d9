"""The command line in the process of a test."""

import sys
from collections.abc import Callable
from typing import NamedTuple

import pytest

from magpie_ray.cli import program


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """As fast as a function, with the entry point's own error handling."""

    def call(*arguments: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["magpie-ray", *arguments])
        code = 0
        try:
            program.main()
        except SystemExit as exc:
            code = exc.code if isinstance(exc.code, int) else 0
        return Outcome(code, *capsys.readouterr())

    return call
