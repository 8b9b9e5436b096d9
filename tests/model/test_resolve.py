"""A model is found, and its commit changes when it does. No network is tried here."""

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest

from magpie_ray.errors import ModelError
from magpie_ray.model.resolve import Model, resolve_model

COMMIT = "1234567890abcdef1234567890abcdef12345678"


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face's hub, offline."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(1000))
    return folder


def cached(hub_cache: Path, name: str, commit: str) -> None:
    """The layout in which the hub's client keeps what it has downloaded."""
    repository = hub_cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")


def digest(folder: Path) -> str:
    return resolve_model(str(folder), None).commit


def test_the_bundled_model_is_in_the_package() -> None:
    model = resolve_model("builtin:tiny-chat", None)
    assert model.name == "builtin:tiny-chat"
    assert (Path(model.location) / "config.json").is_file()
    assert model.commit.startswith("sha256-")
    assert (model.revision, model.is_folder) == (None, True)


def test_a_bundled_model_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ModelError, match=r"got 'builtin:huge'; bundled models are builtin:tiny-chat"):
        resolve_model("builtin:huge", None)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "chat_template.jinja", "modeling_own.py"]
)
def test_the_digest_of_a_folder_changes_with_what_is_loaded(folder: Path, name: str) -> None:
    before = digest(folder)
    (folder / "README.md").write_text("documents don't count")
    assert digest(folder) == before
    (folder / name).write_bytes(b"\1" + bytes(999))
    assert digest(folder) != before


def test_the_digest_of_large_weights_looks_into_them(folder: Path) -> None:
    size, weights = 64 << 20, folder / "model.safetensors"  # of 64 MiB, 32 blocks of 1 MiB are hashed
    seen = set()
    for position in (None, 0, (size - (1 << 20)) * 15 // 31, size - 1):
        weights.write_bytes(b"")
        with weights.open("r+b") as file:
            file.truncate(size)
            if position is not None:
                file.seek(position)
                file.write(b"\1")
        seen.add(digest(folder))
    with weights.open("r+b") as file:
        file.truncate(size + 1)
    seen.add(digest(folder))
    assert len(seen) == 5


def test_the_digest_is_the_same_wherever_the_folder_is(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    assert digest(tmp_path / "copy") == digest(folder)


def test_a_folder_has_no_revisions(folder: Path) -> None:
    for name in (str(folder), "builtin:tiny-chat"):
        with pytest.raises(ModelError, match=r"model\.revision: got 'main'.*is a folder"):
            resolve_model(name, "main")


def test_a_folder_may_be_given_from_the_home_directory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert resolve_model("~/model", None).location == str(folder)


def test_a_model_in_the_cache_is_found_offline(hub_cache: Path) -> None:
    cached(hub_cache, "org/chat", COMMIT)
    for revision in (None, "main", COMMIT):
        model = resolve_model("org/chat", revision)
        assert model == Model(name="org/chat", commit=COMMIT)
    assert (model.location, model.revision, model.is_folder) == ("org/chat", COMMIT, False)


@pytest.mark.parametrize(
    ("name", "revision"),
    [("org/missing", None), ("org/chat", "v2"), ("no such/model/at all", None)],
)
def test_a_model_that_is_not_there_is_named_with_what_to_try(
    hub_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, revision: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    cached(hub_cache, "org/chat", COMMIT)
    with pytest.raises(ModelError, match=r"Check the spelling.*HF_TOKEN.*give a folder") as caught:
        resolve_model(name, revision)
    assert repr(name) in str(caught.value)
    assert revision is None or repr(revision) in str(caught.value)


def test_a_folder_is_named_by_its_full_path_and_checked_where_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    model = resolve_model("./model", None)
    monkeypatch.chdir("/")
    assert model.location == str(folder)
    assert model.revision is None
    model.check()
    (folder / "config.json").write_text('{"changed": true}')
    with pytest.raises(ModelError, match="holds another model"):
        model.check()
    (folder / "config.json").unlink()
    folder.rmdir()
    with pytest.raises(ModelError, match=r"has no folder .*model"):
        model.check()


@pytest.mark.parametrize("name", ["./missing", "/nowhere/missing", "~/missing"])
def test_a_name_that_can_only_be_a_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match=r"there is no folder .*missing"):
        resolve_model(name, None)
