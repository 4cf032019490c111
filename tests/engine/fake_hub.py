"""A hub on this machine: one model, as the real one answers its own client; and a cache as that client leaves it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "someone/small"


class Hub:
    """A server of one repository.

    :ivar asked: method and path of every request.
    """

    def __init__(self, files: Path) -> None:
        self.files = {p.name: p.read_bytes() for p in files.iterdir()}
        self.asked: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.do_GET(body=False)

            def do_GET(self, *, body: bool = True) -> None:
                path = urlsplit(self.path).path
                hub.asked.append(f"{self.command} {path}")
                status, headers, data = hub.answer(path)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                if body:
                    self.wfile.write(data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        api = f"/api/models/{REPOSITORY}"
        if path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            return _json({"id": REPOSITORY, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.files]})
        if path == f"{api}/tree/{COMMIT}":
            return _json([
                {"type": "file", "path": name, "size": len(data), "oid": _hash(data)}
                for name, data in self.files.items()
            ])  # fmt: skip
        if path.startswith("/api/models/someone/gated"):
            return 403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"}, b"{}"
        if path.startswith(f"{api}/revision/"):
            return 404, {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "Invalid rev id"}, b"{}"
        name = path.rpartition("/")[2]
        if path == f"/{REPOSITORY}/resolve/{COMMIT}/{name}" and name in self.files:
            data = self.files[name]
            return 200, {"ETag": f'"{_hash(data)}"', "X-Repo-Commit": COMMIT}, data
        return 404, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b"{}"


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json", "X-Repo-Commit": COMMIT}, json.dumps(value).encode()


def _hash(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def serving(files: Path) -> Iterator[Hub]:
    hub = Hub(files)
    try:
        yield hub
    finally:
        hub.close()


def put_into_cache(cache: Path, files: Path, repository: str = REPOSITORY, commit: str = COMMIT) -> Path:
    """A snapshot as the client keeps it: links to blobs, and a ref that names the commit."""
    model = cache / f"models--{repository.replace('/', '--')}"
    snapshot = model / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    for path in files.iterdir():
        data = path.read_bytes()
        (model / "blobs" / _hash(data)).write_bytes(data)
        (snapshot / path.name).symlink_to(model / "blobs" / _hash(data))
    return snapshot
