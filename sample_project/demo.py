"""The whole road in one command: build the sample, install it, serve it, ask it, stop it.

    python3 sample_project/demo.py

It needs Python 3.11 and nothing else: what it makes goes into `.work/demo` at the top of the
repository. It exits with 0 if the served model agrees with the images' true labels.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.support.environment import (  # noqa: E402 - the line above finds it
    ROOT,
    WORK,
    make_environment,
    pip,
    pip_environ,
    run,
    say,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = WORK / "demo"
WHEELHOUSE = DEMO / "wheelhouse"
"""hatch-mar's own wheel, as if an index had it."""
DIST = DEMO / "dist"
REQUIRED_AGREEMENT = 0.9
READY_TIMEOUT = 180
STOP_TIMEOUT = 30


def main() -> None:
    """Build, install, serve, predict and stop."""
    wheel = build()
    script = install(wheel)
    with served(script) as port:
        agreement = predict(port)
    if agreement < REQUIRED_AGREEMENT:
        sys.exit(f"only {agreement:.0%} of the labels agree")


def build() -> Path:
    """Return the sample's wheel, built with the hatch-mar of this repository."""
    python = make_environment(DEMO / "build")
    pip(python, "install", "build")
    for directory in (WHEELHOUSE, DIST):
        shutil.rmtree(directory, ignore_errors=True)
    environ = pip_environ(WHEELHOUSE)
    say("building hatch-mar")
    options = ("-m", "build", "--outdir")
    run(str(python), *options, str(WHEELHOUSE), "--wheel", str(ROOT), environ=environ)
    say("building sample_project")
    run(str(python), *options, str(DIST), str(HERE), environ=environ)
    return next(DIST.glob("*.whl"))


def install(wheel: Path) -> Path:
    """Return the program `serve-digits` of an environment that holds `wheel` and its needs."""
    environment = DEMO / "serve"
    python = make_environment(environment)
    say(f"installing {wheel.name}")
    # Same version, new content: what an earlier run of this demo installed has to go first.
    pip(python, "uninstall", "--yes", "hatch-mar", "digits")
    pip(python, "install", str(wheel), wheelhouse=WHEELHOUSE)
    return environment / "bin" / "serve-digits"


@contextmanager
def served(script: Path) -> Iterator[int]:
    """Run `script` on a free port, ready; then stop it as an operator does."""
    port = free_port()
    say(f"{script.name} --port {port}")
    command: list[str | Path] = [script, "--port", str(port), "--no-access-log"]
    server = subprocess.Popen(command, cwd=DEMO)
    try:
        wait_ready(server, port)
        yield port
        say("stopping")
        server.send_signal(signal.SIGTERM)
        if status := server.wait(STOP_TIMEOUT):
            sys.exit(f"{script.name} exited with status {status}")
    finally:
        server.kill()
        server.wait()


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_ready(server: subprocess.Popen[bytes], port: int) -> None:
    """Return once `/readyz` says yes."""
    deadline = time.monotonic() + READY_TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if ask(port, "GET", "/readyz")[0] == http.client.OK:
                return
        except ConnectionError:
            pass
        time.sleep(0.1)
    sys.exit(f"serve-digits is not ready: exit status {server.poll()}")


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Return status and body of one request's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def predict(port: int) -> float:
    """Print the prediction for each image beside its true label; return the share that agree."""
    images = sorted((HERE / "images").glob("*.png"))
    right = 0
    print(f"{'image':14} {'label':>5} {'predicted':>9} {'probability':>11}")
    for image in images:
        status, body = ask(port, "PUT", "/predictions/digits", image.read_bytes())
        if status != http.client.OK:
            sys.exit(f"{image.name}: status {status}: {body.decode(errors='replace')}")
        answer = json.loads(body)
        label = int(image.name.split("-")[0])
        agrees = answer["digit"] == label
        right += agrees
        mark = "" if agrees else "  <- differs"
        print(f"{image.name:14} {label:5} {answer['digit']:9} {answer['probability']:11.4f}{mark}")
    print(f"{right} of {len(images)} predictions agree with the true labels")
    return right / len(images)


if __name__ == "__main__":
    if os.name != "posix":
        sys.exit("the demo needs Linux")
    main()
