"""A runner whose models name their weights: it fetches them before its workers start."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive
from hatch_mar.errors import OfflineError, WeightsError
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import fetch
from hatch_mar.weights.reference import Reference
from hatch_mar.weights.upkeep import prune
from tests.support.powerless import WITHOUT_PRIVILEGES
from tests.support.runner import Runner, await_file, start_runner
from tests.support.tap import Tap, start_tap

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
FIRST = b"first " * 200_000
SECOND = b"second " * 200_000
HANDLER = b"""
import os

def handle(data, context):
    files = ["first.bin", "deep/second.bin"]
    links = [os.path.islink(name) for name in files]
    return data and [str([os.path.getsize(name) for name in files] + links)] * len(data)
"""
ANSWER = "[1200000, 1400000, True, True]"


@pytest.fixture
def tap() -> Iterator[Tap]:
    with start_tap() as tap:
        yield tap


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HATCH_MAR_CACHE_DIR": str(tmp_path / "cache"), "NO_PROXY": "127.0.0.1"}


def refer(target: str, source: str, data: bytes) -> Reference:
    sha256 = hashlib.sha256(data).hexdigest()
    return Reference(target=target, source=source, sha256=sha256, size=len(data))


@pytest.fixture
def references(tap: Tap) -> tuple[Reference, Reference]:
    """Two files; the tap stops in the middle of the second one."""
    return (
        refer("first.bin", tap.serve("/first.bin", FIRST), FIRST),
        refer("deep/second.bin", tap.serve("/second.bin", SECOND, pause=700_000), SECOND),
    )


@pytest.fixture
def archive(tmp_path: Path, references: tuple[Reference, ...]) -> str:
    return write(tmp_path, references)


def write(directory: Path, references: tuple[Reference, ...]) -> str:
    plan = Plan(
        name="far",
        version="2.0",
        manifest=Manifest(model_name="far", model_version="2.0", handler="handler.py:handle"),
        members=(Member("handler.py", HANDLER),),
        runtime="custom",
        references=references,
        filename="far-2.0.mar",
    )
    write_archive(plan, directory / plan.filename)
    return str(directory / plan.filename)


def ready(runner: Runner) -> tuple[int, Any]:
    answer = httpx.get(f"{runner.url}/readyz")
    return answer.status_code, answer.json()["reasons"]


def await_reason(runner: Runner, reason: str) -> None:
    """Return once /readyz says so: the bytes that the site has sent may be on their way still."""
    deadline = time.monotonic() + 60
    while ready(runner) != (503, [reason]):
        assert time.monotonic() < deadline, ready(runner)
        time.sleep(0.01)


def predict(runner: Runner) -> str:
    return httpx.post(f"{runner.url}/predictions/far", content=b"x").text


def parts(cache: Path) -> list[Path]:
    return [path for path in (cache / "partial").iterdir() if not path.suffix]


def test_it_says_what_it_waits_for_and_then_serves(
    archive: str, tap: Tap, env: dict[str, str], tmp_path: Path
) -> None:
    with start_runner(archive, env=env, wait="listening") as runner:
        assert tap.paused.wait(60)
        await_reason(runner, "far: fetching weights: deep/second.bin 50 % of 1.4 MB")
        assert httpx.get(f"{runner.url}/livez").status_code == 200
        assert httpx.get(f"{runner.url}/ping").status_code == 500
        tap.open.set()
        runner.wait_ready()
        assert predict(runner) == ANSWER
        held = list(prune(Cache(tmp_path / "cache"), now=time.time() + 1e6, max_size=0))
        assert [each.fate for each in held] == ["in use"] * 2
    assert [line.split()[0] for line in tap.asked] == ["/first.bin", "/second.bin"]
    assert len(list(prune(Cache(tmp_path / "cache"), now=time.time(), max_size=0))) == 2


def test_the_second_start_asks_nobody_and_reads_nothing(
    archive: str, tap: Tap, env: dict[str, str], tmp_path: Path
) -> None:
    tap.open.set()
    with start_runner(archive, env=env):
        pass
    asked = len(tap.asked)
    for path in (tmp_path / "cache" / "sha256").rglob("*"):
        if path.is_file():  # of right size and time, but not of right bytes: nobody hashes it
            status = path.stat()
            path.chmod(0o644)
            path.write_bytes(bytes(status.st_size))
            path.chmod(0o444)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with start_runner(archive, env=env) as runner:
        assert predict(runner) == ANSWER
    assert len(tap.asked) == asked


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_fetch_at_once_and_the_next_one_takes_it_up(
    archive: str, tap: Tap, env: dict[str, str], tmp_path: Path, signum: signal.Signals
) -> None:
    sha256 = hashlib.sha256(SECOND).hexdigest()
    with start_runner(archive, env=env, wait="listening") as runner:
        assert tap.paused.wait(60)
        await_file(tmp_path / "cache" / "partial" / f"{sha256}.spans")
        assert runner.stop(signum, timeout=10) == 0
        assert "Traceback" not in runner.output()
    (part,) = parts(tmp_path / "cache")
    assert part.name == sha256
    tap.open.set()
    with start_runner(archive, env=env) as runner:
        assert predict(runner) == ANSWER
    assert tap.asked[-1].startswith("/second.bin bytes=")
    assert parts(tmp_path / "cache") == []


def test_two_runners_fetch_once(archive: str, tap: Tap, env: dict[str, str]) -> None:
    with start_runner(archive, env=env, wait="listening") as one:
        assert tap.paused.wait(60)
        with start_runner(archive, env=env, wait="listening") as other:
            await_reason(other, "far: looking for weights: deep/second.bin")
            tap.open.set()
            one.wait_ready()
            other.wait_ready()
            assert predict(one) == predict(other) == ANSWER
    assert [line.split()[0] for line in tap.asked] == ["/first.bin", "/second.bin"]


def test_weights_that_are_gone(tap: Tap, env: dict[str, str], tmp_path: Path) -> None:
    url = f"http://user:secret@{tap.url.removeprefix('http://')}/gone.bin?token=secret"
    archive = write(tmp_path, (refer("first.bin", url, FIRST),))
    with start_runner(archive, env=env, wait="no") as runner:
        assert runner.process.wait(60) == WeightsError.exit_code
        output = runner.output()
    assert "first.bin: cannot be fetched" in output
    assert f"{tap.url}/gone.bin: the server answers 404: there is no such file; put" in output
    assert f"or put the file at {env['HATCH_MAR_CACHE_DIR']}/sha256/" in output
    assert "secret" not in output
    assert "Traceback" not in output


def test_offline_asks_nobody(archive: str, tap: Tap, env: dict[str, str], tmp_path: Path) -> None:
    env["HATCH_MAR_OFFLINE"] = "1"
    with start_runner(archive, env=env, wait="no") as runner:
        assert runner.process.wait(60) == OfflineError.exit_code
        for target in ("first.bin", "deep/second.bin"):
            assert f"{target}: not in the cache" in runner.output()
    assert tap.asked == []


@pytest.mark.namespaces
def test_without_a_network_at_all(
    archive: str, references: tuple[Reference, ...], tap: Tap, env: dict[str, str], tmp_path: Path
) -> None:
    """In a network of its own, which has not even a loopback; test_pull.py has a guard as well."""
    tap.open.set()
    for reference in references:
        fetch(reference, Cache(tmp_path / "cache"))
    command = ["unshare", "-Urn", sys.executable, "-m", "hatch_mar", "pull", archive]
    env["HATCH_MAR_OFFLINE"] = "1"
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **env}, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "was there" in done.stdout


READ_ONLY = """
import os, subprocess, sys

for directory in sys.argv[1:3]:
    subprocess.run(["mount", "--bind", directory, directory], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", directory], check=True)
os.execv(sys.executable, [sys.executable, "-m", "hatch_mar", "serve", *sys.argv[3:]])
"""


@pytest.mark.namespaces
def test_a_read_only_cache_and_a_read_only_package(
    references: tuple[Reference, ...], tap: Tap, env: dict[str, str], tmp_path: Path
) -> None:
    """As in an image whose root file system may not be written."""
    tap.open.set()
    for reference in references:
        fetch(reference, Cache(tmp_path / "cache"))
    package = tmp_path / "package"
    package.mkdir()
    archive = write(package, references)
    argv = ["unshare", "-Urm", sys.executable, "-c", READ_ONLY, str(tmp_path / "cache")]
    argv += [str(package), archive]
    with start_runner(argv=argv, env=env, cwd=ROOT) as runner:
        assert predict(runner) == ANSWER


def test_a_cache_and_a_package_that_cannot_be_written(
    references: tuple[Reference, ...], tap: Tap, env: dict[str, str], tmp_path: Path
) -> None:
    """The same where nobody may mount."""
    tap.open.set()
    for reference in references:
        fetch(reference, Cache(tmp_path / "cache"))
    package = tmp_path / "package"
    package.mkdir()
    archive = write(package, references)
    folders = [package, tmp_path / "cache", *filter(Path.is_dir, (tmp_path / "cache").rglob("*"))]
    for folder in folders:
        folder.chmod(0o555)
    try:
        argv = [*WITHOUT_PRIVILEGES, sys.executable, "-m", "hatch_mar"]
        with start_runner(archive, argv=[*argv, "serve"], env=env, cwd=ROOT) as runner:
            assert predict(runner) == ANSWER
    finally:
        for folder in folders:
            folder.chmod(0o755)
