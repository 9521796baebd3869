"""`hatch-mar serve`: what it serves, what it refuses, and how it ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.archives import write_mar
from tests.support.runner import Runner, await_file, start_runner
from tests.support.wire import connect, order

if TYPE_CHECKING:
    from collections.abc import Iterator

GREETER = """
    def handle(data, context):
        if data is None:
            return None
        return [context.model_name + " " + context.manifest["model"]["modelVersion"]] * len(data)
"""
OBEDIENT = """
    import os, time

    def handle(data, context):
        if data is None:
            return None
        for row in data:
            open(row["body"]["touch"], "w").close()
            while not os.path.exists(row["body"]["until"]):
                time.sleep(0.005)
        return ["done"] * len(data)
"""
PATIENT = """
    import os, time

    while not os.path.exists(os.environ["GO"]):
        time.sleep(0.005)

    def handle(data, context):
        return data and ["done"] * len(data)
"""
NEVER_LOADED = """
    import time

    def handle(data, context):
        time.sleep(600)
"""
BROKEN = """
    def handle(data, context):
        raise RuntimeError("no weights today")
"""


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where servers of a test put their temporary files."""
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def greeter(tmp_path: Path) -> Path:
    return write_mar(tmp_path, "greeter", GREETER)


UNHURRIED = (
    sys.executable,
    "-c",
    "from hatch_mar.cli import main, runner; runner._HEAD_START = 60.0; main()",
    "serve",
)
"""A program that opens no door before its models are under way, on however slow a machine."""


def predict(runner: Runner, path: str) -> str:
    return httpx.post(f"{runner.url}/predictions/{path}", content=b"x", timeout=60).text


def failed(runner: Runner) -> list[str]:
    """Return the lines that a server printed which must have ended by itself."""
    runner.process.wait()
    assert "listening" not in runner.output()
    return runner.output().splitlines()


def assert_nothing_left(runner: Runner, scratch: Path) -> None:
    with pytest.raises(ProcessLookupError):
        os.killpg(runner.process.pid, 0)
    assert list(scratch.iterdir()) == []


def pack_tgz(mar: Path, target: Path) -> Path:
    directory = unpack(mar, target.parent / "unpacked")
    path = target.parent / "greeter.tar.gz"
    subprocess.run(["tar", "-czf", path, "-C", target.parent, directory.name], check=True)
    return path


def unpack(mar: Path, directory: Path) -> Path:
    with zipfile.ZipFile(mar) as archive:
        archive.extractall(directory)
    return directory


def install(mar: Path, site: Path) -> Path:
    """Lay out what pip makes of a model's wheel; return the directory for PYTHONPATH."""
    package = site / "greeter_mar"
    unpack(mar, package / "model")
    (package / "__init__.py").touch()
    info = site / "greeter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[hatch_mar.models]\ngreeter = greeter_mar\n")
    return site


def test_a_mar_file(greeter: Path) -> None:
    with start_runner(str(greeter)) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"
        assert "greeter 1.0: ready on cpu, 1 worker" in runner.output()


def test_a_tarball(greeter: Path, tmp_path: Path) -> None:
    with start_runner(str(pack_tgz(greeter, tmp_path / "x"))) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"


def test_a_directory(greeter: Path, tmp_path: Path) -> None:
    with start_runner(str(unpack(greeter, tmp_path / "greeter"))) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"


def test_a_wheel(greeter: Path, tmp_path: Path) -> None:
    site = install(greeter, tmp_path / "site")
    path = tmp_path / "greeter-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in sorted(site.rglob("*")):
            wheel.write(file, file.relative_to(site))
    with start_runner(str(path)) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"


def test_an_installed_model_by_name(greeter: Path, tmp_path: Path) -> None:
    site = install(greeter, tmp_path / "site")
    with start_runner("greeter", env={"PYTHONPATH": str(site)}) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"


def test_serve_package_has_one_port(greeter: Path, tmp_path: Path) -> None:
    site = install(greeter, tmp_path / "site")
    program = "from hatch_mar.cli.serve import serve_package; serve_package('greeter_mar')"
    with start_runner(
        argv=(sys.executable, "-c", program), env={"PYTHONPATH": str(site)}
    ) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"
        assert runner.management_url == ""
        assert runner.metrics_url == runner.url
        assert "Requests2XX" in httpx.get(f"{runner.url}/metrics").text
        assert httpx.get(f"{runner.url}/models").status_code == 404


def test_serve_package_manages_when_asked(greeter: Path, tmp_path: Path) -> None:
    site = install(greeter, tmp_path / "site")
    program = "from hatch_mar.cli.serve import serve_package; serve_package('greeter_mar')"
    with start_runner(
        "--management-port=0",
        argv=(sys.executable, "-c", program),
        env={"PYTHONPATH": str(site)},
    ) as runner:
        assert httpx.get(f"{runner.management_url}/models").status_code == 200
        assert runner.management_url != runner.url


def test_another_name(greeter: Path) -> None:
    with start_runner(f"hello={greeter}") as runner:
        assert predict(runner, "hello") == "hello 1.0"
        assert httpx.get(f"{runner.url}/predictions/greeter").status_code == 404


def test_versions_in_any_order_and_the_first_is_the_default(tmp_path: Path) -> None:
    paths = [
        str(write_mar(tmp_path, "greeter", GREETER, version=version))
        for version in ("3.0", "1.0", "2.0")
    ]
    with start_runner(*paths) as runner:
        assert predict(runner, "greeter") == "greeter 3.0"
        assert predict(runner, "greeter/2.0") == "greeter 2.0"


def test_one_version_twice(greeter: Path) -> None:
    with start_runner(str(greeter), str(greeter), wait="listening") as runner:
        runner.wait_output("not served")
        assert "version '1.0' is served already" in runner.output()
        assert predict(runner, "greeter") == "greeter 1.0"


def test_a_model_store(greeter: Path) -> None:
    (greeter.parent / ".hidden.mar").touch()
    (greeter.parent / "notes.txt").touch()
    store = str(greeter.parent)
    with start_runner("--model-store", store, "--models", "all", cwd=Path("/")) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"
    with start_runner("--model-store", store, "--models", f"a={greeter.name}") as runner:
        assert predict(runner, "a") == "a 1.0"


def test_options_overrule_the_config(tmp_path: Path) -> None:
    config = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\ndeviceType: gpu\n"
    mar = write_mar(tmp_path, "greeter", GREETER, config=config)
    with start_runner(str(mar), "--workers=2", "--batch-size=8", "--device=cpu") as runner:
        (model,) = httpx.get(f"{runner.management_url}/models/greeter").json()
    assert (len(model["workers"]), model["batchSize"], model["deviceType"]) == (2, 8, "cpu")


def test_no_access_log(greeter: Path) -> None:
    with start_runner(str(greeter), "--no-access-log") as runner:
        predict(runner, "greeter")
        runner.stop()
        assert "POST" not in runner.output()


def test_limits(greeter: Path) -> None:
    with start_runner(str(greeter), "--max-request-size=3", "--max-response-size=10") as runner:
        url = f"{runner.url}/predictions/greeter"
        assert httpx.post(url, content=b"1234").status_code == 413
        assert httpx.post(url, content=b"123").status_code == 500


def test_a_shells_limit_of_open_files_is_no_limit_of_connections(greeter: Path) -> None:
    limited = ("sh", "-c", 'ulimit -S -n 64; exec "$@"', "-", sys.executable, "-m", "hatch_mar")
    with start_runner("serve", str(greeter), argv=limited) as runner, ExitStack() as stack:
        wires = [stack.enter_context(connect(runner.url)) for _ in range(100)]
        for wire in wires:
            wire.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert [wire.read().status for wire in wires] == [200] * 100


def test_a_taken_port_is_known_before_anything_is_loaded(greeter: Path, scratch: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with start_runner(str(greeter), f"--port={port}", env={"TMPDIR": str(scratch)}) as runner:
            (line,) = failed(runner)
            assert line == (
                f"hatch-mar: 127.0.0.1:{port}: the inference port is taken; "
                "choose another with --port"
            )
            assert runner.exited() == 7
            assert_nothing_left(runner, scratch)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ((), 6, "hatch-mar: nothing to serve: name a .mar file, a directory, a wheel"),
        (("no.mar",), 6, "hatch-mar: no.mar: no such file or directory"),
        (("dir/model",), 6, "hatch-mar: dir/model: no such file or directory"),
        (("--models", "all"), 6, "hatch-mar: --models names files of a --model-store: give one"),
        (("--model-store", "no"), 6, "hatch-mar: no: --model-store is no directory"),
        (("{greeter}", "--management-host=0.0.0.0"), 2, "set HATCH_MAR_MANAGEMENT_TOKEN"),
        (("{greeter}", "--port=65534"), 2, "--port 65534: no room for 2 more ports after it"),
        (("{greeter}", "--device=tpu"), 2, "'tpu': must be cpu, gpu, auto, or numbers"),
    ],
)
def test_a_mistake_on_the_command_line(
    greeter: Path, args: tuple[str, ...], code: int, words: str
) -> None:
    filled = [arg.format(greeter=greeter) for arg in args]
    with start_runner(*filled) as runner:
        assert words in failed(runner)[-1]
        assert runner.exited() == code


def test_a_model_that_is_not_installed(scratch: Path) -> None:
    with start_runner("nobody", argv=UNHURRIED, env={"TMPDIR": str(scratch)}) as runner:
        (line,) = failed(runner)
        assert line.startswith("hatch-mar: nobody: no such model is installed")
        assert runner.exited() == 6
        assert_nothing_left(runner, scratch)


def test_a_broken_archive(tmp_path: Path, scratch: Path) -> None:
    broken = tmp_path / "broken.mar"
    broken.write_bytes(b"PK\x03\x04 and nothing more")
    with start_runner(str(broken), argv=UNHURRIED, env={"TMPDIR": str(scratch)}) as runner:
        (line,) = failed(runner)
        assert line.startswith(f"hatch-mar: {broken}")
        assert runner.exited() == 3
        assert_nothing_left(runner, scratch)


def test_a_member_that_was_changed(greeter: Path, scratch: Path, tmp_path: Path) -> None:
    directory = unpack(greeter, tmp_path / "changed")
    handler = directory / "handler.py"
    handler.write_bytes(handler.read_bytes().replace(b"model_name", b"model_nome"))
    with start_runner(str(directory), argv=UNHURRIED, env={"TMPDIR": str(scratch)}) as runner:
        (line,) = failed(runner)
        assert "handler.py" in line
        assert runner.exited() == 3
        assert_nothing_left(runner, scratch)


def test_a_handler_that_raises_while_initialising(tmp_path: Path, scratch: Path) -> None:
    mar = write_mar(tmp_path, "broken", BROKEN)
    with start_runner(str(mar), env={"TMPDIR": str(scratch)}) as runner:
        runner.process.wait()
        lines = runner.output().splitlines()
        assert lines[-1].startswith("hatch-mar: ")
        assert "no weights today" in lines[-1]
        assert '    raise RuntimeError("no weights today")' in lines
        assert runner.output().count("Traceback") == 1
        assert runner.exited() == 5
        assert_nothing_left(runner, scratch)


def test_a_handler_that_is_not_there(tmp_path: Path, scratch: Path) -> None:
    mar = write_mar(tmp_path, "empty", "x = 1")
    with start_runner(str(mar), env={"TMPDIR": str(scratch)}) as runner:
        runner.process.wait()
        assert runner.output().splitlines()[-1].startswith("hatch-mar: ")
        assert runner.exited() == 5
        assert_nothing_left(runner, scratch)


def test_a_golden_example_with_another_answer(tmp_path: Path, scratch: Path) -> None:
    mar = write_mar(tmp_path, "greeter", GREETER, examples={b"x": b"greeter 2.0"})
    with start_runner(str(mar), env={"TMPDIR": str(scratch)}) as runner:
        runner.process.wait()
        line = runner.output().splitlines()[-1]
        assert line.startswith("hatch-mar: ")
        assert "MAR-INF/examples/0" in line
        assert "Traceback" not in runner.output()
        assert runner.exited() == 5
        assert_nothing_left(runner, scratch)


def test_a_golden_example_with_the_right_answer(tmp_path: Path) -> None:
    mar = write_mar(tmp_path, "greeter", GREETER, examples={b"x": b"greeter 1.0"})
    with start_runner(str(mar)) as runner:
        assert predict(runner, "greeter") == "greeter 1.0"


def test_nothing_to_serve_is_left(tmp_path: Path, scratch: Path) -> None:
    paths = [str(write_mar(tmp_path, name, BROKEN)) for name in ("one", "two")]
    with start_runner(*paths, env={"TMPDIR": str(scratch)}) as runner:
        runner.process.wait()
        assert runner.output().count("not served") == 2
        assert runner.exited() == 5
        assert_nothing_left(runner, scratch)


@pytest.fixture
def _heeds_hangups() -> Iterator[None]:
    """Let what we start heed SIGHUP, though we may run under nohup ourselves."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_heeds_hangups")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_it_cleanly(greeter: Path, scratch: Path, signum: int) -> None:
    with start_runner(str(greeter), env={"TMPDIR": str(scratch)}) as runner:
        assert list(scratch.iterdir()) != []
        assert runner.stop(signum) == 0
        assert_nothing_left(runner, scratch)
        assert "Traceback" not in runner.output()


def test_a_closed_stdout_loses_what_is_said_and_nothing_else(tmp_path: Path) -> None:
    mar = write_mar(tmp_path, "patient", PATIENT)
    process = subprocess.Popen(
        [sys.executable, "-m", "hatch_mar", "serve", str(mar), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "GO": str(tmp_path / "go")},
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().decode().split()[2].rstrip(",")
        process.stdout.close()
        (tmp_path / "go").touch()
        assert httpx.post(f"{url}/predictions/patient", content=b"x", timeout=60).status_code == 200
        process.terminate()
        assert (process.wait(), process.stderr.read()) == (0, b"")


def test_an_interrupt_from_the_terminal_loses_no_answer(tmp_path: Path, scratch: Path) -> None:
    mar = write_mar(tmp_path, "odd", OBEDIENT)
    with (
        start_runner(str(mar), env={"TMPDIR": str(scratch)}) as runner,
        connect(runner.url) as busy,
    ):
        busy.send(order("", touch=str(tmp_path / "started"), until=str(tmp_path / "gate")))
        await_file(tmp_path / "started")
        os.killpg(runner.process.pid, signal.SIGINT)  # a terminal tells the workers too
        (tmp_path / "gate").touch()
        assert busy.read().body == b"done"
        assert runner.process.wait() == 0
        assert_nothing_left(runner, scratch)


def test_a_signal_while_loading(tmp_path: Path, scratch: Path) -> None:
    mar = write_mar(tmp_path, "never", NEVER_LOADED)
    with start_runner(str(mar), env={"TMPDIR": str(scratch)}, wait="listening") as runner:
        assert runner.stop() == 0
        assert_nothing_left(runner, scratch)
        assert "Traceback" not in runner.output()


def test_a_second_signal_ends_it_at_once(tmp_path: Path, scratch: Path) -> None:
    mar = write_mar(tmp_path, "odd", OBEDIENT)
    with start_runner(str(mar), env={"TMPDIR": str(scratch)}) as runner:
        with connect(runner.url) as busy, connect(runner.url) as idle:
            busy.send(order("", touch=str(tmp_path / "started"), until=str(tmp_path / "never")))
            await_file(tmp_path / "started")
            runner.process.send_signal(signal.SIGTERM)
            assert idle.at_end()
            assert runner.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert_nothing_left(runner, scratch)
        assert "Traceback" not in runner.output()


def test_requests_longer_than_the_drain_are_cut_off(tmp_path: Path, scratch: Path) -> None:
    mar = write_mar(tmp_path, "odd", OBEDIENT)
    with (
        start_runner(str(mar), "--drain-timeout=0.2", env={"TMPDIR": str(scratch)}) as runner,
        connect(runner.url) as busy,
    ):
        busy.send(order("", touch=str(tmp_path / "started"), until=str(tmp_path / "never")))
        await_file(tmp_path / "started")
        assert runner.stop() == 0
        assert_nothing_left(runner, scratch)


def test_the_door_is_lean() -> None:
    program = (
        "import sys, hatch_mar.cli.serve, hatch_mar.cli.runner, hatch_mar.api.doors\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'hatchling', 'onnx', 'onnxruntime', 'PIL'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_removed_archive_is_still_served(greeter: Path) -> None:
    with start_runner(str(greeter)) as runner:
        shutil.move(greeter, greeter.with_suffix(".away"))
        assert predict(runner, "greeter") == "greeter 1.0"


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    archive = write_mar(tmp_path, "greeter", GREETER)
    code = (
        "import sys; sys.modules['uvicorn'] = None\n"  # as for a package that is not there
        "from hatch_mar.cli import main; main(sys.argv[1:])"
    )
    process = subprocess.run(
        [sys.executable, "-c", code, "serve", str(archive)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.strip() == (
        "hatch-mar: serving needs the extra `serve`: pip install 'hatch-mar[serve]'"
    )
