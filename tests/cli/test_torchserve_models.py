"""`torchserve --models`: every way to name one."""

from __future__ import annotations

import tarfile
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hatch_mar.archive.seal import SEAL_NAME
from tests.support.archives import write_mar
from tests.support.daemon import HANDLER, Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def link(tmp_path: Path) -> Iterator[str]:
    """The URL of a directory that has `linked-1.0.mar`, and nothing of the store."""
    write_mar(tmp_path / "elsewhere", "linked", HANDLER)
    handler = partial(_Quiet, directory=str(tmp_path / "elsewhere"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _unpack(home: Home) -> None:
    with zipfile.ZipFile(home.path / "store" / "fine-1.0.mar") as archive:
        archive.extractall(home.path / "store" / "directory")
    with tarfile.open(home.path / "store" / "tarred.tar.gz", "w:gz") as tar:
        tar.add(home.path / "store" / "directory", arcname=".")


def _names(home: Home) -> list[str]:
    models = httpx.get(f"{home.management_url}/models").json()["models"]
    return [model["modelName"] for model in models]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("all", "fine"),
        ("ALL", "fine"),
        ("fine-1.0.mar", "fine"),
        ("other=fine-1.0.mar", "other"),
    ],
)
def test_of_the_store(home: Home, text: str, name: str) -> None:
    home.start("--models", text, "--disable-token-auth")
    home.wait_for(f"{name} 1.0: ready")
    assert _names(home) == [name]


def test_directories_and_tarballs(home: Home) -> None:
    _unpack(home)
    home.start("--models", "one=directory", "two=tarred.tar.gz", "three=fine-1.0.mar", "--dt")
    for name in ("one", "two", "three"):
        home.wait_for(f"{name} 1.0: ready")
        assert httpx.post(f"{home.url}/predictions/{name}", content=b"").status_code == 200
    assert _names(home) == ["one", "three", "two"]


def test_a_link_on_the_command_line_is_the_operators_word(home: Home, link: str) -> None:
    home.start("--models", f"{link}/linked-1.0.mar", f"named={link}/linked-1.0.mar", "--dt")
    for name in ("linked", "named"):
        home.wait_for(f"{name} 1.0: ready")
    assert (home.path / "store" / "linked-1.0.mar").is_file()


def test_a_link_in_the_file_is_the_operators_word(home: Home, link: str) -> None:
    home.configure(f"load_models={link}/linked-1.0.mar")
    home.start("--disable-token-auth")
    home.wait_for("linked 1.0: ready")


def test_a_link_from_a_client_is_not(home: Home, link: str) -> None:
    home.start("--disable-token-auth", "--enable-model-api")
    answer = httpx.post(f"{home.management_url}/models?url={link}/linked-1.0.mar")
    assert answer.status_code == 404
    assert "does not match any allowed URL(s)" in answer.json()["message"]
    assert [path.name for path in (home.path / "store").iterdir()] == ["fine-1.0.mar"]


def test_a_link_that_leads_nowhere(home: Home, link: str) -> None:
    home.start("--models", f"{link}/none.mar", "fine-1.0.mar", "--disable-token-auth")
    home.wait_for("fine 1.0: ready")
    home.wait_for("none.mar: not served: Failed to download archive from: ")
    assert _names(home) == ["fine"]


def test_a_model_of_the_compiled_backend(home: Home) -> None:
    path = home.path / "store" / "fine-1.0.mar"
    with zipfile.ZipFile(path) as archive:
        names = set(archive.namelist()) - {SEAL_NAME}
        files = {name: archive.read(name) for name in names}
    with zipfile.ZipFile(home.path / "store" / "lsp.mar", "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data.replace(b'"runtime": "python"', b'"runtime": "LSP"'))
    home.start("--models", "compiled=lsp.mar", "--disable-token-auth")
    home.wait_for("runtime LSP is TorchServe's C++ backend, which is not served here")


def test_a_model_that_never_loads_makes_nobody_unhealthy(home: Home) -> None:
    gate = home.path / "gate"
    write_mar(
        home.path / "store",
        "hopeless",
        f"""
        import os, time
        while not os.path.exists({str(gate)!r}):
            time.sleep(0.01)
        raise RuntimeError("no")
        """,
    )
    home.start("--models", "hopeless-1.0.mar", "fine-1.0.mar", "--disable-token-auth")
    home.wait_for("fine 1.0: ready")
    seen = {httpx.get(f"{home.url}/ping").status_code}
    gate.touch()
    while "hopeless: not served" not in home.log.read_text():
        seen.add(httpx.get(f"{home.url}/ping").status_code)
    assert seen == {200}
