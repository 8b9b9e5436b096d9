"""A model is found, and its commit changes when it does. No network is tried here."""

import os
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


@pytest.mark.parametrize(
    "name", ["s3://bucket/llama", "gs://bucket/llama", "https://huggingface.co/org/llama"]
)
def test_a_url_is_refused_with_what_to_do_about_a_bucket(name: str) -> None:
    with pytest.raises(ModelError, match=f"got '{name}'.*mount the bucket"):
        resolve_model(name, None)


@pytest.mark.parametrize("has_config", [True, False])
def test_a_lora_adapter_is_refused_with_its_base_model_and_the_remedy(folder: Path, has_config: bool) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base"}')
    if not has_config:
        (folder / "config.json").unlink()
    with pytest.raises(
        ModelError, match=r"a LoRA adapter of org/base \(adapter_config\.json\).*merge it into"
    ):
        resolve_model(str(folder), None)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"a LoRA adapter \(adapter_config\.json\).*merge it into"):
        resolve_model(str(folder), None)


@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "adapters.safetensors"]
)
def test_what_a_training_leaves_beside_an_adapter_is_no_model(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    assert digest(folder)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="a LoRA adapter"):
        resolve_model(str(folder), None)


@pytest.mark.parametrize(("config", "is_model"), [("config.json", True), ("params.json", True), ("x", False)])
def test_a_folder_without_a_config_is_refused_for_an_engine(
    folder: Path, config: str, is_model: bool
) -> None:
    (folder / "config.json").rename(folder / config)
    model = resolve_model(str(folder), None)
    if is_model:
        model.check_config()
    else:
        with pytest.raises(ModelError, match=r"has no config\.json: name the folder that holds"):
            model.check_config()


def test_a_whole_model_may_keep_the_config_of_an_adapter_that_it_was_merged_with(folder: Path) -> None:
    before = digest(folder)
    (folder / "adapter_config.json").write_text("{}")
    assert digest(folder) != before


def test_a_lora_adapter_of_the_hub_is_refused_too(hub_cache: Path) -> None:
    cached(hub_cache, "org/adapter", COMMIT)
    snapshot = hub_cache / "models--org--adapter" / "snapshots" / COMMIT
    (snapshot / "config.json").rename(snapshot / "adapter_config.json")
    with pytest.raises(ModelError, match=r"got 'org/adapter', but that is a LoRA adapter"):
        resolve_model("org/adapter", None)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_this_user_may_not_read_is_named(folder: Path) -> None:
    (folder / "config.json").chmod(0)
    with pytest.raises(ModelError, match=r"config\.json on .* can't be read: Permission denied"):
        resolve_model(str(folder), None)
