"""A build on the hub: its own bytes, once, never open to all by accident; and clear words on what fails."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from magpie_ray.errors import ConfigError, HubError, PreflightError
from magpie_ray.publish.card import write_card
from magpie_ray.publish.hub import Hub
from magpie_ray.publish.push import push
from magpie_ray.storage.storage import Storage
from tests.support.builds import complete_build, memory_storage
from tests.support.fake_hub import TOKEN, FakeHub, Repo, fake_hub

NAME = "me/rows"

# In huggingface_hub's own way of sending a file.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    with fake_hub() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


@pytest.fixture
def storage() -> Storage:
    made = memory_storage()
    complete_build(made, num_rows=12, grid=3)
    write_card(made)
    return made


def files_of(hub: FakeHub, branch: str = "main") -> dict[str, bytes]:
    return hub.repos[NAME].branches[branch]


def build_files(storage: Storage) -> dict[str, bytes]:
    return {item.key: storage.read(item.key) for item in [*storage.list_objects("data")]} | {
        "README.md": storage.read("README.md")
    }


def test_the_hub_has_the_bytes_of_the_build_and_the_card_last(hub: FakeHub, storage: Storage) -> None:
    done = push(storage, Hub(NAME), files_per_commit=2)
    assert files_of(hub) == build_files(storage)
    assert hub.repos[NAME].private
    assert [len(added) for _, added, _ in hub.repos[NAME].commits] == [2, 2, 1]
    assert hub.repos[NAME].commits[-1][1] == ["README.md"]
    assert dict(done.sent) == {path: len(data) for path, data in build_files(storage).items()}


def test_a_second_push_sends_nothing(hub: FakeHub, storage: Storage) -> None:
    push(storage, Hub(NAME))
    uploads, commits = list(hub.uploads), list(hub.repos[NAME].commits)
    done = push(storage, Hub(NAME))
    assert (done.sent, done.present) == ((), 5)
    assert (hub.uploads, hub.repos[NAME].commits) == (uploads, commits)


def test_a_push_that_broke_off_goes_on_where_it_was(
    hub: FakeHub, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, commits = Hub.commit, []

    def breaks(self: Hub, *arguments: object, **named: object) -> None:
        commits.append(1)
        if len(commits) == 2:
            raise HubError("gone")
        plain(self, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(Hub, "commit", breaks)
    with pytest.raises(HubError):
        push(storage, Hub(NAME), files_per_commit=2)
    done = push(storage, Hub(NAME), files_per_commit=2)
    assert (len(done.sent), done.present) == (3, 2)
    assert files_of(hub) == build_files(storage)
    assert len(hub.uploads) == len({*hub.uploads}) == 4


def test_few_bytes_are_in_memory_at_a_time(
    hub: FakeHub, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, sizes = Hub.upload, []

    def counted(self: Hub, files: dict[str, bytes]) -> object:
        sizes.append(len(files))
        additions = plain(self, files)
        large = [addition for addition in additions if addition.path_in_repo.endswith("parquet")]
        assert all(addition.path_or_fileobj == b"" for addition in large)
        return additions

    monkeypatch.setattr(Hub, "upload", counted)
    push(storage, Hub(NAME), bytes_at_once=1)
    assert sizes == [1] * 5
    assert len(hub.repos[NAME].commits) == 1
    assert files_of(hub) == build_files(storage)


def test_a_dry_run_tells_what_would_be_sent_and_changes_nothing(hub: FakeHub, storage: Storage) -> None:
    done = push(storage, Hub(NAME), dry_run=True)
    assert [path for path, _ in done.sent] == list(build_files(storage))
    assert hub.repos == {}
    push(storage, Hub(NAME))
    assert push(storage, Hub(NAME), dry_run=True).sent == ()


def test_a_branch_of_its_own_and_the_report_where_they_are_asked_for(hub: FakeHub, storage: Storage) -> None:
    with pytest.raises(PreflightError, match="magpie-ray report"):
        push(storage, Hub(NAME, revision="v2"), report=True)
    storage.replace("_magpie/report.html", b"<p>")
    push(storage, Hub(NAME, revision="v2"), report=True)
    assert files_of(hub) == {}
    assert files_of(hub, "v2") == build_files(storage) | {"_magpie/report.html": b"<p>"}


def test_only_a_whole_build_goes_there_unless_that_is_said(hub: FakeHub, storage: Storage) -> None:
    storage.delete("data/part-000000000003.parquet")
    with pytest.raises(PreflightError, match=r"9 of 12 rows are committed.*--partial"):
        push(storage, Hub(NAME))
    assert hub.repos == {}
    push(storage, Hub(NAME), partial=True)
    assert b"9 rows of 12: the build is not complete yet" in files_of(hub)["README.md"]
    with pytest.raises(PreflightError, match="holds no build"):
        push(memory_storage(), Hub(NAME))


def test_a_repository_that_is_open_to_all_gets_nothing_unless_that_is_said(
    hub: FakeHub, storage: Storage
) -> None:
    hub.repos[NAME] = Repo(private=False)
    with pytest.raises(ConfigError, match="--public"):
        push(storage, Hub(NAME))
    assert files_of(hub) == {}
    push(storage, Hub(NAME), public=True)
    assert files_of(hub) == build_files(storage)
    push(storage, Hub("me/new"), public=True)
    assert not hub.repos["me/new"].private


def test_data_of_another_build_is_neither_mixed_in_nor_lost_by_accident(
    hub: FakeHub, storage: Storage
) -> None:
    push(storage, Hub(NAME))
    other = memory_storage()
    complete_build(other, num_rows=9, grid=3, texts=("Other?", "Yes, other."))
    write_card(other)
    before = dict(files_of(hub))
    with pytest.raises(ConfigError, match="another build: data/part-000000000000"):
        push(other, Hub(NAME))
    assert files_of(hub) == before
    done = push(other, Hub(NAME), replace=True)
    assert done.deleted == ("data/part-000000000009.parquet",)
    assert files_of(hub) == build_files(other)


def test_equal_names_and_sizes_do_not_make_equal_files(hub: FakeHub, storage: Storage) -> None:
    push(storage, Hub(NAME))
    path = "data/part-000000000003.parquet"
    files_of(hub)[path] = files_of(hub)[path][::-1]
    with pytest.raises(ConfigError, match=path):
        push(storage, Hub(NAME))
    push(storage, Hub(NAME), replace=True)
    assert files_of(hub) == build_files(storage)


@pytest.mark.parametrize(
    ("path", "status", "remedy"),
    [
        ("repos/create", 403, "the token may not write there"),
        ("/tree/", 429, "rate limit is reached: wait"),
        ("/commit/", 412, "push again"),
        ("/large/", 400, "push again"),
    ],
)
def test_what_the_hub_refuses_is_told_with_a_remedy(
    hub: FakeHub, storage: Storage, path: str, status: int, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)  # between the library's own tries
    hub.refuse[path] = status
    with pytest.raises(HubError, match=remedy) as caught:
        push(storage, Hub(NAME))
    assert hub.url in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_token_that_is_wrong_or_missing_is_named(
    hub: FakeHub, storage: Storage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_wrongwrongwrong")
    with pytest.raises(HubError, match="set HF_TOKEN"):
        push(storage, Hub(NAME))
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(HubError, match="set HF_TOKEN"):
        push(storage, Hub(NAME))


@pytest.mark.parametrize("name", ["rows", "a/b/c", "me/ro ws", ""])
def test_what_is_no_name_of_a_repository_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="must be OWNER/NAME"):
        Hub(name)


@pytest.mark.slow
def test_the_command_pushes_to_the_endpoint_of_the_environment(hub: FakeHub, tmp_path: Path) -> None:
    complete_build(Storage(str(tmp_path / "out")))
    environment = os.environ | {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_TOKEN": TOKEN,
    }
    command = [sys.executable, "-m", "magpie_ray", "push", str(tmp_path / "out"), NAME]
    for options, told in (
        (["--dry-run"], "4 files, "),
        ([], "4 files, "),
        ([], "0 files, 0 bytes sent, 4 files there already"),
    ):
        done = subprocess.run(
            [*command, *options], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert told in done.stdout
    assert len(files_of(hub)) == 4
