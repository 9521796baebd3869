"""Stores on loopback: as much of the Hub, of Google's and of Azure's API as reading a file takes.

Each is asked by its real client. S3 is moto's server, in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request as UrlRequest
from urllib.request import urlopen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOTO = """
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
print(*server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One answer. `truncate` hangs up after so many bytes of a body that claims to be longer."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    truncate: int | None = None


class Store:
    """A server that remembers what was asked, and fails the next times as told."""

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[Asked] = []
        self.faults: list[Told] = []

    def fail(self, times: int = 1, **told: Any) -> None:
        """Answer the next requests so: the fields are those of `Told`."""
        self.faults += [Told(**told)] * times

    def handle(self, asked: Asked) -> Told:
        self.asked.append(asked)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None and fault.truncate is None:
            return fault
        told = self.answer(asked)
        if fault is None:
            return told
        return Told(
            status=told.status, headers=told.headers, body=told.body, truncate=fault.truncate
        )

    def answer(self, asked: Asked) -> Told:
        raise NotImplementedError


def part_of(data: bytes, wanted: str | None, headers: Mapping[str, str]) -> Told:
    """Answer with `data`, or with the range of it that is wanted (RFC 9110, 14)."""
    found = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if not found:
        return Told(headers=headers, body=data)
    start, stop = int(found[1]), min(int(found[2] or len(data)) + 1, len(data))
    if start >= len(data):
        return Told(status=416)
    span = f"bytes {start}-{stop - 1}/{len(data)}"
    return Told(status=206, headers={**headers, "Content-Range": span}, body=data[start:stop])


@contextmanager
def serving(store: Store) -> Iterator[None]:
    """Serve `store`, and tell it where."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(method=self.command, path=parts.path, query=query, headers=headers)
            told = store.handle(asked)
            self.send_response(told.status)
            for name, value in {"Content-Length": str(len(told.body)), **told.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                with suppress(ConnectionError):  # who asked had enough
                    self.wfile.write(told.body[: told.truncate])

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Hub(Store):
    """Repositories with one branch, `main`, and what it was: big files are on another path."""

    TOKEN = "hf_" + "a1" * 17

    def __init__(self) -> None:
        super().__init__()
        self.commits: dict[tuple[str, str], dict[str, bytes]] = {}
        """Files by path, of `(repository, commit)`; the last commit of a repository is `main`."""
        self.gated: set[str] = set()
        self.private: set[str] = set()

    def commit(self, repository: str, files: Mapping[str, bytes]) -> str:
        """Make `files` the repository's; return the commit."""
        name = hashlib.sha1(f"{repository}{len(self.commits)}".encode()).hexdigest()
        self.commits[repository, name] = dict(files)
        return name

    def answer(self, asked: Asked) -> Told:
        if asked.path.startswith("/cdn/"):
            return self._deliver(asked)
        found = re.fullmatch(r"/(?P<repo>.+?)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", asked.path)
        assert found, asked.path
        return self._resolve(asked, found["repo"], unquote(found["rev"]), unquote(found["path"]))

    def _resolve(self, asked: Asked, repository: str, revision: str, path: str) -> Told:
        known = [name for owner, name in self.commits if owner == repository]
        login = asked.headers.get("authorization") == f"Bearer {self.TOKEN}"
        if not known or (repository in self.private and not login):
            return Told(status=401, headers={"X-Error-Code": "RepoNotFound"})
        if repository in self.gated:
            return Told(status=403 if login else 401, headers={"X-Error-Code": "GatedRepo"})
        commit = known[-1] if revision in {"main", "refs/pr/1"} else revision
        if commit not in known:
            return Told(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        data = self.commits[repository, commit].get(path)
        if data is None:
            return Told(status=404, headers={"X-Error-Code": "EntryNotFound"})
        headers = {"X-Repo-Commit": commit}
        if len(data) < 1000:  # in git itself
            headers["ETag"] = f'"{hashlib.sha1(data).hexdigest()}"'
            return part_of(data, asked.headers.get("range"), headers)
        digest = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-ETag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        location = f"{self.url.replace('127.0.0.1', 'localhost')}/cdn/{digest}?Signature=hunter2"
        return Told(status=302, headers={**headers, "Location": location})

    def _deliver(self, asked: Asked) -> Told:
        assert "authorization" not in asked.headers, "the token stays with the Hub"
        for files in self.commits.values():
            for data in files.values():
                if hashlib.sha256(data).hexdigest() == asked.path.rpartition("/")[2]:
                    return part_of(data, asked.headers.get("range"), {"ETag": '"cdn"'})
        return Told(status=404)


class Google(Store):
    """Buckets whose objects keep all their generations."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, str], list[bytes]] = {}
        self.token: str | None = None
        """What one has to send as a bearer, if anything."""

    def put(self, bucket: str, name: str, data: bytes) -> str:
        """Write an object; return its generation."""
        generations = self.objects.setdefault((bucket, name), [])
        generations.append(data)
        return str(len(generations))

    def answer(self, asked: Asked) -> Told:
        found = re.fullmatch(r"(/download)?/storage/v1/b/([^/]+)/o/([^/]+)", asked.path)
        assert found, asked.path
        if self.token and asked.headers.get("authorization") != f"Bearer {self.token}":
            return Told(status=403)
        generations = self.objects.get((found[2], unquote(found[3])), [])
        generation = int(asked.query.get("generation", len(generations)))
        if not 1 <= generation <= len(generations):
            return Told(status=404)
        data = generations[generation - 1]
        if asked.query.get("alt") == "media":
            headers = {"X-Goog-Generation": str(generation)}
            return part_of(data, asked.headers.get("range"), headers)
        told = {"generation": str(generation), "size": str(len(data)), "bucket": found[2]}
        headers = {"Content-Type": "application/json"}
        return Told(headers=headers, body=json.dumps(told).encode())


class Azure(Store):
    """An account, `account`, whose blobs keep all their versions."""

    KEY = "aHVudGVyMg=="

    def __init__(self) -> None:
        super().__init__()
        self.blobs: dict[str, list[bytes]] = {}

    @property
    def connection_string(self) -> str:
        return (
            f"DefaultEndpointsProtocol=http;AccountName=account;AccountKey={self.KEY};"
            f"BlobEndpoint={self.url}/account;"
        )

    def put(self, path: str, data: bytes) -> str:
        """Write the blob at `container/name`; return its version."""
        self.blobs.setdefault(path, []).append(data)
        return self._name(len(self.blobs[path]) - 1)

    @staticmethod
    def _name(index: int) -> str:
        return f"2026-01-01T00:00:{index:02}.0000000Z"

    def answer(self, asked: Asked) -> Told:
        versions = self.blobs.get(unquote(asked.path).removeprefix("/account/"), [])
        names = list(map(self._name, range(len(versions))))
        wanted = asked.query.get("versionid", names[-1] if names else "")
        if not asked.headers.get("authorization", "").startswith("SharedKey account:"):
            return Told(status=403, headers={"x-ms-error-code": "AuthenticationFailed"})
        if wanted not in names:
            return Told(status=404, headers={"x-ms-error-code": "BlobNotFound"})
        tag = f'"{hashlib.sha1(versions[names.index(wanted)]).hexdigest()}"'
        if asked.headers.get("if-match", tag) != tag:
            return Told(status=412, headers={"x-ms-error-code": "ConditionNotMet"})
        headers = {
            "ETag": tag,
            "x-ms-version-id": wanted,
            "x-ms-blob-type": "BlockBlob",
            "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT",
        }
        return part_of(versions[names.index(wanted)], asked.headers.get("x-ms-range"), headers)


@contextmanager
def moto() -> Iterator[str]:
    """Run moto's server; give its URL."""
    process = subprocess.Popen(
        [sys.executable, "-c", MOTO],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process:
        try:
            host, port = process.stdout.readline().split()
            yield f"http://{host}:{port}"
        finally:
            process.kill()


@contextmanager
def checking_credentials(url: str) -> Iterator[None]:
    """Let moto refuse those whom it does not know."""
    _set_free_requests(url, 0)
    try:
        yield
    finally:
        _set_free_requests(url, 10**9)


def _set_free_requests(url: str, count: int) -> None:
    headers = {"Content-Type": "text/plain"}
    data = str(count).encode()
    with urlopen(UrlRequest(f"{url}/moto-api/reset-auth", data=data, headers=headers)):
        pass


@contextmanager
def silence() -> Iterator[str]:
    """Take connections, and never answer; give the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
