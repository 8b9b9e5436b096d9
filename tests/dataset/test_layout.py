"""The keys of an output are spelled once, and what is read under them is what it should be."""

import ast
from dataclasses import dataclass

import pytest
from pydantic import ConfigDict, TypeAdapter

from magpie_ray.dataset import layout
from magpie_ray.errors import CorruptBuildError
from tests.support.builds import memory_storage
from tests.support.paths import ROOT

PACKAGE = ROOT / "magpie_ray"


@dataclass(frozen=True, kw_only=True)
class Sample:
    __pydantic_config__ = ConfigDict(extra="forbid")

    number: int
    name: str = ""


def test_a_record_is_read_or_there_is_none() -> None:
    storage, record = memory_storage(), TypeAdapter(Sample)
    assert layout.read_record(storage, "x.json", record) is None
    storage.create("x.json", layout.to_json({"number": 3}))
    assert layout.read_record(storage, "x.json", record) == Sample(number=3)


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"[]", "an object"),
        (b"{}", "number: Field required"),
        (b'{"number": "3"}', "number: Input should be a valid integer"),
        (b'{"number": true}', "number: Input should be a valid integer"),
        (b'{"number": 3, "other": 1}', "other: "),
    ],
)
def test_a_damaged_or_foreign_record_is_named_with_its_first_problem(raw: bytes, problem: str) -> None:
    storage = memory_storage()
    storage.create("x.json", raw)
    with pytest.raises(CorruptBuildError, match=problem) as caught:
        layout.read_record(storage, "x.json", TypeAdapter(Sample))
    assert str(caught.value).startswith(f"{storage.url}/x.json is damaged or foreign (")


def spelled_keys(path: str) -> set[str]:
    """String constants that are keys below an output, or begin with one; texts of several words are prose."""
    texts = (
        node.value
        for node in ast.walk(ast.parse((PACKAGE / path).read_text()))
        if isinstance(node, ast.Constant)
    )
    keys = ("_magpie", layout.SUCCESS_KEY, layout.CARD_KEY, layout.DATA_FILES)
    return {text for text in texts if isinstance(text, str) and text.startswith(keys) and " " not in text}


def test_no_other_module_spells_a_key() -> None:
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")}
    # The store keeps its own working files beside the records.
    others = {name for name in modules if not name.startswith("storage/")} - {"dataset/layout.py"}
    assert spelled_keys("dataset/layout.py")
    assert {name: spelled_keys(name) for name in others if spelled_keys(name)} == {}
