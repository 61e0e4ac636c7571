"""A small hub on this machine, for tests: repositories in memory, served the way the real one answers.

    with FakeHub() as hub:
        repository = hub.add("owner/name", {"model.safetensors": b"..."}, license="mit")
        ... Hub(endpoint=hub.url) ...

It speaks as much of the protocol as huggingface_hub uses to list and download: model info, trees, and files with
hashes, ranges and the redirect of large files to another place.
"""

import hashlib
import json
import re
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 1000  # bytes; from here on a file is kept by its SHA-256, behind a redirect
PIECE = 1 << 14


@dataclass
class Repository:
    """What the hub has under one name, and how it behaves."""

    files: dict[str, bytes]
    license: str | None = None
    gated: bool = False
    dates: dict[str, str] = field(default_factory=dict)      # path -> when it was committed
    unsafe: set[str] = field(default_factory=set)            # paths that the scan found something in
    damaged: set[str] = field(default_factory=set)           # paths that arrive with another content
    breaks: dict[str, list[int]] = field(default_factory=dict)  # path -> after how many bytes each next answer ends
    status: int | None = None                                # answer everything with this

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files)).encode()).hexdigest()


@dataclass(frozen=True)
class Transfer:
    """One answer with the content of a file."""

    path: str
    start: int   # first byte that was sent
    sent: int    # bytes that were sent


class FakeHub:
    """The server, in a thread of its own."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.transfers: list[Transfer] = []
        self.requests: list[str] = []
        self.tokens: list[tuple[str, str]] = []   # (path of the request, its Authorization)
        hub = self

        class Handler(HubHandler):
            server_hub = hub

        self._server = HubServer(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add(self, name: str, files: Mapping[str, bytes], **traits: Any) -> Repository:
        self.repositories[name] = Repository(dict(files), **traits)
        return self.repositories[name]

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class HubServer(ThreadingHTTPServer):
    """Does not complain of those who hang up in the middle."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class HubHandler(BaseHTTPRequestHandler):
    """Answers one request."""

    server_hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        """Tests are quiet."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server_hub.requests.append(path)
        self.server_hub.tokens.append((path, self.headers.get("Authorization", "")))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            self._info(match[1], match[2])
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?", path):
            self._tree(match[1], match[2])
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/lfs/([^/]+/[^/]+)/(.+)", path):
            self._content(match[1], match[2])
        else:
            self._fail(404, "RepoNotFound")

    def _repository(self, name: str, revision: str | None, opening: bool = False) -> Repository | None:
        """The repository, or None after the refusal is sent. The pages of a gated one can be seen, its files not."""
        repository = self.server_hub.repositories.get(name)
        if repository is None:
            self._fail(401, "RepoNotFound", "Repository not found")
        elif repository.status is not None:
            self._fail(repository.status)
        elif revision not in (None, "main", repository.commit):
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        elif opening and repository.gated:
            self._fail(403, "GatedRepo", f"Access to model {name} is restricted")
        else:
            return repository
        return None

    def _info(self, name: str, revision: str | None) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        card = {"license": repository.license} if repository.license else {}
        self._json({
            "id": name, "modelId": name, "sha": repository.commit, "private": False, "disabled": False,
            "gated": "auto" if repository.gated else False, "downloads": 0, "likes": 0, "tags": [], "cardData": card,
            "siblings": [{"rfilename": path} for path in repository.files],
        })

    def _tree(self, name: str, revision: str) -> None:
        repository = self._repository(name, revision)
        if repository is None:
            return
        rows: list[dict[str, Any]] = [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
            for folder in sorted({path.rsplit("/", 1)[0] for path in repository.files if "/" in path})
        ]
        for path, content in repository.files.items():
            row: dict[str, Any] = {"type": "file", "oid": blob_id(content), "size": len(content), "path": path}
            if len(content) >= LARGE:
                row["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
            date = repository.dates.get(path, "2026-01-01T00:00:00.000Z")
            row["lastCommit"] = {"id": repository.commit, "title": "Upload", "date": date}
            status = "unsafe" if path in repository.unsafe else "safe"
            row["securityFileStatus"] = {"status": status, "avScan": None, "pickleImportScan": None}
            rows.append(row)
        self._json(rows)

    def _resolve(self, name: str, revision: str, path: str) -> None:
        repository = self._repository(name, revision, opening=True)
        if repository is None:
            return
        if path not in repository.files:
            self._fail(404, "EntryNotFound", "Entry not found")
            return
        content = repository.files[path]
        if len(content) < LARGE:
            self._content(name, path)
            return
        self.send_response(302)
        self.send_header("X-Repo-Commit", repository.commit)
        self.send_header("X-Linked-Etag", f'"{sha256(content)}"')
        self.send_header("X-Linked-Size", str(len(content)))
        # Another name of this machine, so that it is another host, as the real hub's storage is.
        self.send_header("Location", f"http://localhost:{self.server_port}/lfs/{name}/{path}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    @property
    def server_port(self) -> int:
        return int(self.server.server_address[1])

    def _content(self, name: str, path: str) -> None:
        repository = self.server_hub.repositories[name]
        content = repository.files[path]
        promised = f'"{sha256(content) if len(content) >= LARGE else blob_id(content)}"'
        if path in repository.damaged:
            content = bytes(255 - byte for byte in content)
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", promised)
        self.send_header("X-Repo-Commit", repository.commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        breaks = repository.breaks.get(path)
        end = min(len(content), start + breaks.pop(0)) if breaks else len(content)
        self.server_hub.transfers.append(Transfer(path, start, end - start))
        try:
            for piece in range(start, end, PIECE):
                self.wfile.write(content[piece : min(end, piece + PIECE)])
        except OSError:  # whoever asked has gone
            pass
        if end < len(content):
            self.close_connection = True

    def _json(self, value: Any) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _fail(self, status: int, code: str | None = None, message: str = "") -> None:
        content = json.dumps({"error": message}).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", message)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob_id(content: bytes) -> str:
    """What git calls a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
