"""Import paths: what they name, where it is looked for, and what is said when it is not there."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from magpie_ray.errors import ConfigError
from magpie_ray.utils.import_path import is_import_path, load_attribute


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory: empty, and nothing of it stays imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_module_of_the_current_directory_is_found(folder: Path) -> None:
    (folder / "own_rules.py").write_text("class Rules:\n    limit = 7\n")
    assert load_attribute("own_rules:Rules", key="acceptance.custom").limit == 7
    assert load_attribute("own_rules:Rules.limit", key="acceptance.custom") == 7


def test_a_module_below_it_and_an_installed_one_are_found(folder: Path) -> None:
    (folder / "own_package").mkdir()
    (folder / "own_package" / "formats.py").write_text(
        "from own_package import rules\nfound = rules.__name__\n"
    )
    (folder / "own_package" / "rules.py").touch()
    assert load_attribute("own_package.formats:found", key="k") == "own_package.rules"
    assert load_attribute("json:dumps", key="k")([1]) == "[1]"


@pytest.mark.parametrize(
    "path", ["", "module", ":name", "module:", "module.name", "a b:c", "../m:f", "m:f()"]
)
def test_another_form_is_refused_with_the_right_one(path: str) -> None:
    assert not is_import_path(path)
    with pytest.raises(ConfigError, match=r"^model\.chat_format: got .*package\.module:name"):
        load_attribute(path, key="model.chat_format")


def test_a_module_that_is_not_there_is_told_with_the_place_and_the_remedy(folder: Path) -> None:
    with pytest.raises(ConfigError, match=rf"no module own_nothing in {folder}.*--working-dir"):
        load_attribute("own_nothing:f", key="k")
    (folder / "own_package").mkdir()
    with pytest.raises(ConfigError, match=r"no module own_package\.nothing"):
        load_attribute("own_package.nothing:f", key="k")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import own_missing", "No module named 'own_missing'"),
        ("1 / 0", "ZeroDivisionError"),
        ("f(", "Syntax"),
    ],
)
def test_a_module_that_fails_is_told_with_its_own_error(folder: Path, code: str, said: str) -> None:
    (folder / "own_broken.py").write_text(code + "\n")
    with pytest.raises(ConfigError, match=rf"importing own_broken failed: .*{said}"):
        load_attribute("own_broken:f", key="k")


def test_a_name_that_the_module_lacks_is_told() -> None:
    with pytest.raises(ConfigError, match=r"^k: got 'json:nothing', but json .* has no nothing"):
        load_attribute("json:nothing", key="k")


def test_a_module_that_ends_the_process_is_one_that_fails(folder: Path) -> None:
    (folder / "ends.py").write_text("import sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match="k: got 'ends:x', but importing ends failed: SystemExit: 0"):
        load_attribute("ends:x", key="k")


def test_a_module_that_raises_what_ctrl_c_raises_is_one_that_fails(folder: Path) -> None:
    (folder / "gives_up.py").write_text("raise KeyboardInterrupt('no licence')\n")
    with pytest.raises(ConfigError, match="importing gives_up failed: KeyboardInterrupt: no licence"):
        load_attribute("gives_up:x", key="k")


def test_ctrl_c_while_a_module_is_imported_is_the_users(folder: Path) -> None:
    (folder / "is_slow.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)\n")
    with pytest.raises(KeyboardInterrupt):
        load_attribute("is_slow:x", key="k")
