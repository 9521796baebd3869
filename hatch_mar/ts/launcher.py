"""`ts.launcher`: starts and stops the program `torchserve`, for tests of clients and models."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from queue import Full, Queue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MANAGEMENT = "http://localhost:8081"
STARTED = "Model server started"
LONGEST = 1000
"""Lines of output that are kept for somebody who does not read them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server answered, under the names that `requests` has for it."""

    status_code: int
    content: bytes

    @property
    def text(self) -> str:
        """The body."""
        return self.content.decode()

    def json(self) -> Any:  # noqa: ANN401 - JSON
        """Return what the body says."""
        return json.loads(self.content)


def stop(wait: bool = True) -> None:  # noqa: FBT001, FBT002 - TorchServe's signature
    """Stop the server, and wait until it has stopped."""
    subprocess.run([*_program(), "--stop", *(["--foreground"] if wait else [])], check=False)  # noqa: S603 - ours


def start(  # noqa: PLR0917 - TorchServe's signature
    model_store: str | None = None,
    snapshot_file: str | None = None,
    no_config_snapshots: bool = False,  # noqa: FBT001, FBT002
    plugin_folder: str | None = None,
    disable_token: bool = False,  # noqa: FBT001, FBT002
    models: str | None = None,
    enable_model_api: bool = False,  # noqa: FBT001, FBT002
) -> Queue[str | None]:
    """Stop the server that runs, start one, and wait until it says that it has started.

    Its output goes on to this process's, and into the queue that is returned, line by line, with
    None at its end.
    """
    stop()
    options = {
        "--model-store": model_store,
        "--plugins-path": plugin_folder,
        "--ts-config": snapshot_file,
        "--models": models,
    }
    command = [*_program(), "--start"]
    command += [word for flag, value in options.items() if value for word in (flag, value)]
    command += ["--no-config-snapshots"] * no_config_snapshots
    command += ["--disable-token-auth"] * disable_token
    command += ["--enable-model-api"] * enable_model_api
    process = subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        _echo(line)
        if STARTED in line:
            break
    lines: Queue[str | None] = Queue(LONGEST)
    threading.Thread(target=_forward, args=(process, lines), daemon=True).start()
    return lines


def register_model_with_params(params: Mapping[str, str] | Iterable[tuple[str, str]]) -> Answer:
    """Register a model; `params` are those of `POST /models`."""
    pairs = dict(params)
    address = f"{MANAGEMENT}/models?{urllib.parse.urlencode(pairs)}"
    request = urllib.request.Request(address, data=b"", method="POST")  # noqa: S310 - http
    try:
        with urllib.request.urlopen(request) as response:  # noqa: S310
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as refusal:
        with refusal:
            return Answer(refusal.code, refusal.read())


def register_model(model_name: str, url: str) -> Answer:
    """Register `url` as `model_name`, with one worker, and wait until that is ready."""
    pairs = {"model_name": model_name, "url": url, "initial_workers": "1", "synchronous": "true"}
    return register_model_with_params(pairs)


def _program() -> list[str]:
    """Return the command: the one on PATH, or ours where `hatch-mar shims install` has not been."""
    found = shutil.which("torchserve")
    ours = [sys.executable, "-c", "from hatch_mar.cli.torchserve.program import main; main()"]
    return [found] if found else ours


def _forward(process: subprocess.Popen[str], lines: Queue[str | None]) -> None:
    with process:  # its end is waited for
        for line in process.stdout or ():
            _echo(line)
            with contextlib.suppress(Full):
                lines.put_nowait(line)
    if lines.full():
        lines.get_nowait()  # the end is worth more than the first of what nobody read
    lines.put_nowait(None)


def _echo(line: str) -> None:
    sys.stdout.write(line)
    sys.stdout.flush()
