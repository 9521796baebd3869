"""`hatch-mar pull`: weights into the cache, before anybody serves."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.cli import fetching, output
from hatch_mar.cli.fetching import INTERVAL, _Log, render_progress, render_seconds, told
from hatch_mar.errors import DigestMismatchError, OfflineError, TargetError, WeightsError
from tests.support.archives import write_mar
from tests.support.commands import WEIGHTS, write_referring
from tests.support.tap import start_tap

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.builds import ProjectMaker
    from tests.support.commands import Program
    from tests.support.tap import Tap

ROOT = Path(__file__).parents[2]
HANDLER = "def handle(data, context):\n    return data\n"


@pytest.fixture
def tap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Tap]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with start_tap() as tap:
        yield tap


def cached(cache: Path) -> list[bytes]:
    return [path.read_bytes() for path in (cache / "sha256").rglob("*") if path.is_file()]


def test_it_fills_the_cache_and_says_so(
    hatch_mar: Program, weights_cache: Path, tmp_path: Path
) -> None:
    said = hatch_mar("pull", write_referring(tmp_path))
    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines() == [
        "far 2:",
        "  weights/big.bin  256.0 kB  fetched",
        f"1 file, 256.0 kB, in {weights_cache}",
    ]
    assert cached(weights_cache) == [WEIGHTS]


def test_what_is_there_is_not_fetched_again(
    hatch_mar: Program, weights_cache: Path, tmp_path: Path, tap: Tap
) -> None:
    path = write_referring(tmp_path, source=tap.serve("/w.bin", WEIGHTS))
    for state in ("fetched", "present"):
        document = hatch_mar("pull", path, "--json").document
        assert document["directory"] == str(weights_cache)
        (file,) = document["files"]
        assert file.pop("path").startswith(str(weights_cache / "sha256"))
        assert len(file.pop("sha256")) == 64
        assert file == {
            "model": "far 2",
            "target": "weights/big.bin",
            "source": f"{tap.url}/w.bin",
            "size": len(WEIGHTS),
            "state": state,
        }
    assert tap.asked == ["/w.bin"]


@pytest.mark.usefixtures("weights_cache")
def test_several_at_once_share_what_they_share(
    hatch_mar: Program, tmp_path: Path, tap: Tap
) -> None:
    source = tap.serve("/w.bin", WEIGHTS)
    one = write_referring(tmp_path / "one", source=source)
    two = write_referring(tmp_path / "two", source=source, target="other.bin", form="dir")
    said = hatch_mar("pull", one, two, write_mar(tmp_path, "echo", HANDLER))
    assert said.code == 0, said.err
    assert "echo 1.0: names no weights, all of them are in it" in said.out
    assert "1 file, 256.0 kB" in said.out.splitlines()[-1]
    assert tap.asked == ["/w.bin"]


@pytest.mark.usefixtures("weights_cache")
def test_a_project(hatch_mar: Program, make_project: ProjectMaker, tmp_path: Path) -> None:
    write_referring(tmp_path)
    reference = hatch_mar("inspect", tmp_path / "far-2.mar", "--json").document["references"][0]
    mar = 'handler = "handler.py:handle"\n[[tool.mar.weights]]\n'
    mar += f'source = "{reference["source"]}"\nsha256 = "{reference["sha256"]}"\n'
    said = hatch_mar("pull", make_project(mar=mar), "--json")
    assert [file["state"] for file in said.document["files"]] == ["fetched"]


class TestIntoAnotherDirectory:
    def test_it_takes_what_is_here_already(
        self, hatch_mar: Program, weights_cache: Path, tmp_path: Path, tap: Tap
    ) -> None:
        path = write_referring(tmp_path, source=tap.serve("/w.bin", WEIGHTS))
        hatch_mar("pull", path)
        said = hatch_mar("pull", path, "--to", tmp_path / "stick")
        assert said.code == 0, said.err
        assert said.out.endswith(f"in {tmp_path / 'stick'}\n")
        assert cached(tmp_path / "stick") == cached(weights_cache) == [WEIGHTS]
        assert tap.asked == ["/w.bin"]

    def test_and_works_as_a_cache_elsewhere(
        self, hatch_mar: Program, tmp_path: Path, tap: Tap, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_referring(tmp_path, source=tap.serve("/w.bin", WEIGHTS))
        monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "own"))
        assert hatch_mar("pull", path, "--to", tmp_path / "stick").code == 0
        assert not (tmp_path / "own").exists()
        subprocess.run(["cp", "-r", tmp_path / "stick", tmp_path / "there"], check=True)
        monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "there"))
        monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")
        assert "was there" in hatch_mar("pull", path).out

    def test_a_damaged_file_is_not_passed_on(
        self, hatch_mar: Program, weights_cache: Path, tmp_path: Path, tap: Tap
    ) -> None:
        path = write_referring(tmp_path, source=tap.serve("/w.bin", WEIGHTS))
        hatch_mar("pull", path)
        (file,) = (file for file in (weights_cache / "sha256").rglob("*") if file.is_file())
        file.chmod(0o644)
        file.write_bytes(WEIGHTS[::-1])
        assert hatch_mar("pull", path, "--to", tmp_path / "stick").code == 0
        assert cached(tmp_path / "stick") == [WEIGHTS]


class TestOffline:
    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")

    def test_everything_that_is_missing_is_listed(
        self, hatch_mar: Program, weights_cache: Path, tmp_path: Path, tap: Tap
    ) -> None:
        url = f"http://user:secret@{tap.url.removeprefix('http://')}/w.bin?key=secret"
        one = write_referring(tmp_path / "one", source=url)
        two = write_referring(tmp_path / "two", source=url, target="b.bin", sha256="ab" * 32)
        said = hatch_mar("pull", one, two)
        assert said.code == OfflineError.exit_code
        lines = said.err.splitlines()
        assert lines[0] == (
            f"hatch-mar: 2 files are not in {weights_cache}, and HATCH_MAR_OFFLINE forbids to "
            "fetch them:"
        )
        assert "far 2: weights/big.bin" in lines[1]
        assert f"from {tap.url}/w.bin" in lines[1]
        assert lines[2].endswith(f"belongs at {weights_cache}/sha256/ab/{'ab' * 32}")
        assert "secret" not in said.err
        assert tap.asked == []

    def test_files_of_this_machine_are_fetched(
        self, hatch_mar: Program, weights_cache: Path, tmp_path: Path
    ) -> None:
        assert hatch_mar("pull", write_referring(tmp_path)).code == 0
        assert cached(weights_cache) == [WEIGHTS]

    @pytest.mark.parametrize("present", [True, False])
    def test_no_socket_is_made(self, tmp_path: Path, tap: Tap, present: bool) -> None:
        """A guard in the process itself: it ends at the first socket, whatever would be done."""
        path = write_referring(tmp_path, source=tap.serve("/w.bin", WEIGHTS))
        guard = (
            "import os, sys\n"
            "def watch(event, _):\n"
            "    if event.startswith('socket.'): os._exit(99)\n"
            "sys.addaudithook(watch)\n"
            "from hatch_mar.cli import main\n"
            "main(sys.argv[1:])\n"
        )
        env = {**os.environ, "HATCH_MAR_CACHE_DIR": str(tmp_path / "cache")}
        command = [sys.executable, "-c", guard, "pull", str(path)]
        if present:
            online = {**env, "HATCH_MAR_OFFLINE": ""}
            argv = [sys.executable, "-m", "hatch_mar", *command[3:]]
            subprocess.run(argv, check=True, env=online, cwd=ROOT, stdout=subprocess.DEVNULL)
        assert subprocess.run(
            command, check=False, env={**env, "HATCH_MAR_OFFLINE": "0"}, cwd=ROOT
        ).returncode == (0 if present else 99), "the guard sees what there is to see"
        done = subprocess.run(command, check=False, env=env, cwd=ROOT, capture_output=True)
        assert done.returncode == (0 if present else OfflineError.exit_code)


class TestFailures:
    @pytest.fixture(autouse=True)
    def cache(self, weights_cache: Path) -> Path:
        return weights_cache

    def test_what_cannot_be_had_does_not_keep_the_others_from_it(
        self, hatch_mar: Program, tmp_path: Path, cache: Path, tap: Tap
    ) -> None:
        gone = write_referring(tmp_path / "gone", source=f"{tap.url}/gone", sha256="ab" * 32)
        there = write_referring(tmp_path / "there")
        said = hatch_mar("pull", gone, there)
        assert said.code == WeightsError.exit_code
        assert "could not be fetched" in said.out
        assert "gone: the server answers 404" in said.err
        assert cached(cache) == [WEIGHTS]

    def test_all_that_cannot_be_had_is_named(self, hatch_mar: Program, tmp_path: Path) -> None:
        paths = [
            write_referring(tmp_path / name, source=f"/nowhere/{name}", sha256=name * 32)
            for name in ("ab", "cd")
        ]
        said = hatch_mar("pull", *paths)
        assert said.code == WeightsError.exit_code
        errors = [line for line in said.err.splitlines() if "  weights/big.bin: " in line]
        assert [line.partition("/nowhere/")[2][:2] for line in errors] == ["ab", "cd"]
        assert "hatch-mar: 2 files could not be fetched" in said.err

    def test_json_says_why(self, hatch_mar: Program, tmp_path: Path) -> None:
        path = write_referring(tmp_path)
        (tmp_path / "big.bin").write_bytes(WEIGHTS[::-1])
        said = hatch_mar("pull", path, "--json")
        assert said.code == DigestMismatchError.exit_code
        (problem,) = said.document["problems"]
        assert problem["file"] == str(path)
        assert "not what was locked" in problem["message"]

    def test_nothing_is_named(self, hatch_mar: Program) -> None:
        assert hatch_mar("pull").code == 2

    def test_it_is_not_there(self, hatch_mar: Program) -> None:
        assert hatch_mar("pull", "no.mar").code == TargetError.exit_code

    def test_a_cache_that_cannot_be_made(
        self, hatch_mar: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "file" / "cache"))
        said = hatch_mar("pull", write_referring(tmp_path))
        assert said.code == WeightsError.exit_code
        assert "the cache cannot be written: Not a directory; set HATCH_MAR_CACHE_DIR" in said.err


class TestWhatIsSeen:
    def lines(self, capsys: pytest.CaptureFixture[str], size: int | None) -> list[str]:
        now = 0.0
        with _Log("fetching w", size, interval=1e6, clock=lambda: now) as log:
            for second, done in ((0, 10_000_000), (6, 16_000_000), (12, 16_000_000)):
                now = float(second)
                log(done, None)
                if second:
                    log.tell()
        return capsys.readouterr().err.splitlines()

    def test_lines_come_by_themselves_also_while_nothing_else_does(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = ""
        with _Log("fetching w", 100, interval=0.01) as log:
            log(50, 100)
            while shown.count("fetching w: 50 B, 50 % of 100 B, 0 B/s\n") < 2:
                shown += capsys.readouterr().err

    def test_a_log_gets_a_line_now_and_then(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert INTERVAL == 5
        assert self.lines(capsys, 100_000_000) == [
            "fetching w: 16.0 MB, 16 % of 100.0 MB, 1.0 MB/s, 84 s left",
            "fetching w: 16.0 MB, 16 % of 100.0 MB, 0 B/s",
        ]

    def test_also_where_nobody_knows_how_much_there_is(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.lines(capsys, None) == [
            "fetching w: 16.0 MB, 1.0 MB/s",
            "fetching w: 16.0 MB, 0 B/s",
        ]

    def test_a_terminal_gets_a_bar(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        monkeypatch.setattr(output, "PATIENCE", -1.0)
        with told("a\x1b[2Jb", None) as tell:
            tell(10, None)
            tell(25, 100)
            tell(50, 100)
        shown = capsys.readouterr().err
        assert "fetching a\\x1b[2Jb" in shown
        assert " 50%" in shown
        with told("w", 100, alone=False) as tell:
            tell(50, 100)
        assert capsys.readouterr().err == ""

    def test_waiting_is_told_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        said: Queue[str] = Queue()
        monkeypatch.setattr("click.echo", lambda text, **_: said.put(text))
        monkeypatch.setattr(fetching, "INTERVAL", 0.0)
        with told("w", 100):
            shown = said.get(timeout=60)
        assert shown.startswith("fetching w: waiting for its source, or for another process")

    @pytest.mark.parametrize(
        ("done", "size", "shown"),
        [
            (600_000_000, 5_000_000_000, "12 % of 5.0 GB"),
            (4_999_999_999, 5_000_000_000, "99 % of 5.0 GB"),
            (1_500, None, "1.5 kB"),
            (0, 0, "0 B"),
        ],
    )
    def test_how_far_it_is(self, done: int, size: int | None, shown: str) -> None:
        assert render_progress(done, size) == shown

    @pytest.mark.parametrize(
        ("seconds", "shown"),
        [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (1e6, "11 days")],
    )
    def test_how_long_it_takes(self, seconds: float, shown: str) -> None:
        assert render_seconds(seconds) == shown


def test_the_program_itself(tmp_path: Path) -> None:
    """As an image is built: nothing of the test's own process is in it."""
    path = write_referring(tmp_path)
    env: dict[str, Any] = {**os.environ, "HATCH_MAR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "hatch_mar", "pull", str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert cached(tmp_path / "cache") == [WEIGHTS]
