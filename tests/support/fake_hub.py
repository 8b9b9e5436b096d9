"""A fake Hugging Face hub over real HTTP. It answers the calls that a push makes and keeps the files."""

import base64
import json
import math
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1, sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import urlsplit

TOKEN = "hf_abcdefghijklmnop"


@dataclass
class Repo:
    """A repository. branches: files by revision and path. commits: summary, added and deleted paths."""

    private: bool
    branches: dict[str, dict[str, bytes]] = field(default_factory=lambda: {"main": {}})
    commits: list[tuple[str, list[str], list[str]]] = field(default_factory=list)


@dataclass
class FakeHub:
    """The state of the hub. large: bytes by SHA-256. refuse: status of the answer, by pattern of a path.

    large_suffix: of files that do not go into Git itself. files_per_folder, commits_per_hour: as the real hub
    limits them. clock: seconds. retry_after: whether the hub says how long its limit lasts. too_early:
    commits that the limit refused.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    refuse: dict[str, int] = field(default_factory=dict)
    large_suffix: str = ".parquet"
    files_per_folder: int = 10_000
    commits_per_hour: int = 128
    retry_after: bool = True
    clock: Callable[[], float] = time.monotonic
    committed_at: list[float] = field(default_factory=list)
    too_early: int = 0

    def seconds_to_wait(self) -> float:
        """Until the hub takes another commit; 0 for now."""
        recent = [at for at in self.committed_at if at > self.clock() - 3600]
        return recent[0] + 3600 - self.clock() if len(recent) >= self.commits_per_hour else 0.0


class _Handler(BaseHTTPRequestHandler):
    hub: ClassVar[FakeHub]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._handle()

    do_POST = do_PUT = do_GET  # noqa: N815

    def _handle(self) -> None:
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b"".join(self._chunks())
        for pattern, status in self.hub.refuse.items():
            if re.search(pattern, path):
                return self._answer(status, {"error": f"refused to {self.headers.get('Authorization')}"})
        if path.startswith("/large/"):
            self.hub.large[path.rpartition("/")[2]] = body
            self.hub.uploads.append(path.rpartition("/")[2])
            return self._answer(200, {})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return self._answer(200, {"warnings": [], "errors": []})
        match = re.fullmatch(r"(?:/api)?/datasets/([^/]+/[^/]+?)(?:\.git)?(?:/(\w+)(?:/(.+))?)?", path)
        assert match, path
        repo = self.hub.repos.get(match[1])
        if repo is None:
            return self._answer(404, {"error": "none"}, code="RepoNotFound")
        return getattr(self, f"_{match[2] or 'about'}")(match[1], repo, match[3], body)

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _answer(
        self,
        status: int,
        fields: object,
        *,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        data = json.dumps(fields).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in {**({"X-Error-Code": code} if code else {}), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def _create(self, fields: dict[str, Any]) -> None:
        name = f"{fields['organization']}/{fields['name']}"
        if name in self.hub.repos:
            return self._answer(409, {"error": "there already", "url": f"{self.hub.url}/datasets/{name}"})
        private = fields.get("private", fields.get("visibility") == "private")
        self.hub.repos[name] = Repo(private=private)
        return self._answer(200, {"url": f"{self.hub.url}/datasets/{name}"})

    def _about(self, name: str, repo: Repo, *_: object) -> None:
        self._answer(
            200, {"id": name, "private": repo.private, "tags": [], "downloads": 0, "likes": 0, "siblings": []}
        )

    def _branch(self, _: str, repo: Repo, branch: str, __: bytes) -> None:
        if branch in repo.branches:
            return self._answer(409, {"error": "there already"})
        repo.branches[branch] = dict(repo.branches["main"])
        return self._answer(200, {})

    def _tree(self, _: str, repo: Repo, revision: str, __: bytes) -> None:
        if revision not in repo.branches:
            return self._answer(404, {"error": "none"}, code="RevisionNotFound")
        entries: list[dict[str, Any]] = [{"type": "directory", "path": "data", "oid": "0"}]
        for path, data in repo.branches[revision].items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data)}
            entry["oid"] = sha1(b"blob %d\0" % len(data) + data).hexdigest()
            if path.endswith(self.hub.large_suffix):
                entry["oid"] = "0" * 40
                entry["lfs"] = {"oid": sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        return self._answer(200, entries)

    def _preupload(self, _: str, __: Repo, ___: str, body: bytes) -> None:
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(self.hub.large_suffix) else "regular",
                "shouldIgnore": False,
            }
            for file in json.loads(body)["files"]
        ]
        self._answer(200, {"files": modes})

    def _info(self, _: str, __: Repo, rest: str, body: bytes) -> None:
        assert rest == "lfs/objects/batch"
        objects = []
        for large in json.loads(body)["objects"]:
            action = {"actions": {"upload": {"href": f"{self.hub.url}/large/{large['oid']}"}}}
            objects.append(large if large["oid"] in self.hub.large else large | action)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repo: Repo, revision: str, body: bytes) -> None:
        if wait := self.hub.seconds_to_wait():
            self.hub.too_early += 1
            headers = {"Retry-After": str(math.ceil(wait))} if self.hub.retry_after else {}
            return self._answer(
                429, {"error": "You have exceeded our hourly quotas for commits"}, headers=headers
            )
        files = dict(repo.branches[revision])
        header, *operations = (json.loads(line) for line in body.splitlines())
        added, deleted = [], []
        for operation in operations:
            value = operation["value"]
            match operation["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                    added.append(value["path"])
                case "lfsFile":
                    files[value["path"]] = self.hub.large[value["oid"]]
                    added.append(value["path"])
                case "deletedFile":
                    del files[value["path"]]
                    deleted.append(value["path"])
        folders = Counter(path.rpartition("/")[0] for path in files)
        folders.update(Counter(folder.rpartition("/")[0] for folder in [*folders]))
        if folders and max(folders.values()) > self.hub.files_per_folder:
            return self._answer(400, {"error": f"folders with too many entries: {folders.most_common(1)}"})
        repo.branches[revision] = files
        self.hub.committed_at.append(self.hub.clock())
        repo.commits.append((header["value"]["summary"], added, deleted))
        return self._answer(200, {"commitUrl": f"{self.hub.url}/datasets/{name}/commit/1", "commitOid": "1"})


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A hub that listens on this machine."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
