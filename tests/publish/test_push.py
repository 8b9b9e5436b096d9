"""A build on the hub: its own bytes, once, never open to all by accident; and clear words on what fails."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import _http

from magpie_ray.dataset import build_record, run_records
from magpie_ray.errors import ConfigError, HubError, PreflightError
from magpie_ray.publish.card import write_card
from magpie_ray.publish.hub import Hub
from magpie_ray.publish.hub_paths import hub_paths
from magpie_ray.publish.push import push
from magpie_ray.storage.storage import Storage, StoredObject
from magpie_ray.types import DATA_PREFIX, PartitionRecord
from tests.support.builds import build_of, complete_build, finish, memory_storage
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


class VirtualTime:
    """A clock that only sleeping moves. later: what happens when somebody has slept until a time."""

    def __init__(self) -> None:
        self.now, self.later = 0.0, dict[float, Callable[[], None]]()

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        for at in [at for at in self.later if at <= self.now]:
            self.later.pop(at)()


@pytest.fixture
def virtual_time(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    hub.clock = clock = VirtualTime()
    # Between the library's own tries.
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=clock.sleep, time=clock))
    return clock


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


def test_a_new_branch_of_a_repository_of_another_build_holds_this_build_alone(
    hub: FakeHub, storage: Storage
) -> None:
    other = memory_storage()
    complete_build(other, num_rows=20, grid=5)
    push(other, Hub(NAME))
    before = files_of(hub)
    push(storage, Hub(NAME, revision="v2"))
    assert files_of(hub, "v2") == build_files(storage)
    assert files_of(hub) == before
    with pytest.raises(ConfigError, match="holds data of another build"):
        push(other, Hub(NAME, revision="v2"))


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
    hub: FakeHub, storage: Storage, path: str, status: int, remedy: str, virtual_time: VirtualTime
) -> None:
    hub.refuse[path] = status
    with pytest.raises(HubError, match=remedy) as caught:
        push(storage, Hub(NAME, sleep=virtual_time.sleep))
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


@pytest.mark.parametrize("retry_after", [True, False])
def test_commits_wait_while_the_hub_has_had_enough_of_them_for_an_hour(
    hub: FakeHub, storage: Storage, virtual_time: VirtualTime, retry_after: bool
) -> None:
    hub.commits_per_hour, hub.retry_after = 2, retry_after
    push(storage, Hub(NAME, sleep=virtual_time.sleep), files_per_commit=1)
    assert files_of(hub) == build_files(storage)
    assert len(hub.repos[NAME].commits) == 5
    assert 2 * 3600 <= virtual_time.now < 3 * 3600
    # Told how long, it asks once more; left alone with it, not every minute.
    assert hub.too_early <= (2 if retry_after else 30)


def test_a_hub_that_never_has_enough_patience_is_given_up(
    hub: FakeHub, storage: Storage, virtual_time: VirtualTime
) -> None:
    hub.refuse["/commit/"] = 429
    with pytest.raises(HubError, match="rate limit is reached: wait an hour and push again"):
        push(storage, Hub(NAME, patience_seconds=3600.0, sleep=virtual_time.sleep))
    assert 3000 < virtual_time.now <= 3600


@pytest.mark.parametrize("path", ["/commit/", "/tree/", "/info/", "/large/", "repos/create"])
def test_a_hub_that_fails_for_minutes_is_waited_for(
    hub: FakeHub, storage: Storage, virtual_time: VirtualTime, path: str
) -> None:
    hub.refuse[path] = 503
    virtual_time.later[240.0] = hub.refuse.clear
    push(storage, Hub(NAME, sleep=virtual_time.sleep))
    assert files_of(hub) == build_files(storage)
    assert 240 <= virtual_time.now < 600


def test_a_hub_that_fails_for_longer_is_given_up(
    hub: FakeHub, storage: Storage, virtual_time: VirtualTime
) -> None:
    hub.refuse["/commit/"] = 503
    with pytest.raises(HubError, match="the commits so far stay; push again to go on"):
        push(storage, Hub(NAME, sleep=virtual_time.sleep))
    assert 300 < virtual_time.now < 1200


class TinyFiles(Storage):
    """A complete build of so many files of one row, whose content is only their names.

    The files are kept beside the storage, whose threads and retries would take most of a test's time.
    """

    def __init__(self, number: int) -> None:
        super().__init__(memory_storage().url)
        record = build_record.open_build(self, build_of(1))
        run = run_records.start_run(self, num_rows=number, host="here", config={})
        records = [
            PartitionRecord(start=n, stop=n + 1, fingerprint=record.fingerprint, run=1, size=len(f"row {n}"))
            for n in range(number)
        ]
        self.contents = {one.partition.key: f"row {one.start}".encode() for one in records}
        finish(self, record, records, number)
        run_records.end_run(self, run, outcome="done")

    def read(self, key: str) -> bytes:
        return self.contents[key] if key in self.contents else super().read(key)

    def list_objects(self, prefix: str, beginning: str = "") -> list[StoredObject]:
        if prefix != DATA_PREFIX:
            return super().list_objects(prefix, beginning)
        return [StoredObject(key=key, size=len(data)) for key, data in self.contents.items()]


@pytest.mark.slow
def test_a_build_of_thirty_thousand_files_goes_to_sub_folders_and_is_pushed_once(
    hub: FakeHub, virtual_time: VirtualTime
) -> None:
    number, hub.large_suffix = 30_000, ".none"
    storage = TinyFiles(number)
    # Stopped on the way, by a hub that is down.
    plain, hub.commits_per_hour = hub.commits_per_hour, 30
    with pytest.raises(HubError):
        push(storage, Hub(NAME, patience_seconds=0.0, sleep=virtual_time.sleep))
    before = dict(files_of(hub))
    assert 5_000 < len(before) < 15_000
    hub.commits_per_hour = plain
    done = push(storage, Hub(NAME, sleep=virtual_time.sleep))
    assert done.present == len(before)
    assert len(done.sent) + done.present == number + 1
    files = files_of(hub)
    data = {path.rpartition("/")[2]: content for path, content in files.items() if path != "README.md"}
    assert data == {f"part-{n:012d}.parquet": f"row {n}".encode() for n in range(number)}
    assert b"path: data/**/*.parquet" in files["README.md"]
    assert len(hub.repos[NAME].commits) <= 128
    assert len([path for path in files if path.startswith("data/00003/")]) == 2_500


def test_a_build_that_outgrows_one_folder_leaves_there_what_is_there(hub: FakeHub, storage: Storage) -> None:
    push(storage, Hub(NAME), most_flat=4)
    assert b"path: data/*.parquet" in files_of(hub)["README.md"]
    grown = memory_storage()
    complete_build(grown, num_rows=18, grid=3)
    done = push(grown, Hub(NAME), most_flat=4)
    flat = [f"data/part-{n:012d}.parquet" for n in (0, 3, 6, 9)]
    inside = [f"data/00000/part-{n:012d}.parquet" for n in (12, 15)]
    assert sorted(files_of(hub)) == sorted([*flat, *inside, "README.md"])
    assert (done.present, done.deleted) == (4, ())
    assert b"path: data/**/*.parquet" in files_of(hub)["README.md"]
    assert push(grown, Hub(NAME), most_flat=4).sent == ()


@pytest.mark.slow
def test_datasets_reads_both_forms_at_once(hub: FakeHub, storage: Storage, tmp_path: Path) -> None:
    import datasets

    grown = memory_storage()
    complete_build(grown, num_rows=18, grid=3)
    push(storage, Hub(NAME), most_flat=4)
    push(grown, Hub(NAME), most_flat=4)
    for path, content in files_of(hub).items():
        place = tmp_path / "copy" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    rows = datasets.load_dataset(str(tmp_path / "copy"), split="train", cache_dir=str(tmp_path / "cache"))
    assert sorted(rows["row_id"]) == list(range(18))


def test_a_build_that_no_folders_hold_is_refused_before_anything_is_sent(hub: FakeHub) -> None:
    records = [
        PartitionRecord(start=row_id, stop=row_id + 1, fingerprint="f", run=1, size=1)
        for row_id in range(30_000)
    ]
    with pytest.raises(
        PreflightError, match=r"10,001 files are too many for the hub: 10,001 of them would be in"
    ):
        hub_paths(records[:10_001], {}, grid=100, most_flat=9_000)
    with pytest.raises(PreflightError, match="15,000 of them would be in data/, and it takes 10,000"):
        hub_paths(records, {}, grid=2, cells_per_folder=1, most_flat=9_000)
    assert hub.repos == {}


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
