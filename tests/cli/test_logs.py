"""Logs as JSON, and TorchServe's log files."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hatch_mar.cli.logs import take_apart, write_worker_line
from hatch_mar.cli.torchserve.log_files import KEPT, LogFiles, RollingFile
from hatch_mar.serve.output import Source
from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TALKATIVE = """
    import logging
    import sys

    def handle(data, context):
        if data is None:
            return None
        print("printed")
        print("complained", file=sys.stderr)
        try:
            raise RuntimeError("oh")
        except RuntimeError:
            logging.getLogger("mine").exception("it went %s", "wrong")
        context.metrics.add_counter("Seen", len(data))
        return ["fine"] * len(data)
"""


def entries(runner: Runner) -> list[dict[str, Any]]:
    """Return the lines so far: each is an object."""
    return [json.loads(line) for line in runner.output().splitlines()]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    mar = write_mar(tmp_path_factory.mktemp("talkative"), "talkative", TALKATIVE)
    options = ["--log-format", "json", "--metrics-mode", "log", "--metrics-config", "m.yaml"]
    (mar.parent / "m.yaml").write_text(
        "ts_metrics: {gauge: [{name: QueueTime, unit: ms, dimensions: [Level, Hostname]}]}\n"
        "model_metrics: {counter: [{name: Seen, unit: n, dimensions: [ModelName, Level]}]}\n"
    )
    with start_runner(str(mar), *options, wait="no", cwd=mar.parent) as found:
        found.wait_output("ready on")
        said = [one["message"] for one in entries(found)]
        (line,) = [one for one in said if one.startswith("listening: ")]
        found.url = re.findall(r"inference (\S+?),", line)[0]
        answer = httpx.get(f"{found.url}/predictions/talkative?a=1")
        assert answer.text == "fine"
        httpx.get(f"{found.url}/predictions/none/2.0")
        found.wait_output("/predictions/none/2.0")
        found.wait_output("Seen.n:1.0")
        assert found.stop() == 0
        yield found


@pytest.fixture
def request_id(runner: Runner) -> str:
    (line,) = [one for one in entries(runner) if one.get("path") == "/predictions/talkative?a=1"]
    return str(line["request_id"])


class TestJson:
    def test_every_line_has_a_time_and_words(self, runner: Runner) -> None:
        for entry in entries(runner):
            assert re.fullmatch(
                r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", entry["time"]
            )
            assert {"level", "logger", "message"} <= set(entry)

    def test_answers_have_their_fields(self, runner: Runner, request_id: str) -> None:
        found, missing = [one for one in entries(runner) if one["logger"] == "access"]
        assert found["model"] == "talkative"
        assert found["status"] == 200
        assert found["method"] == "GET"
        assert found["protocol"] == "HTTP/1.1"
        assert found["duration_ms"] > 0
        assert re.fullmatch(r"127\.0\.0\.1:\d+", found["client"])
        assert len(request_id) == 36
        assert (missing["model"], missing["version"], missing["status"]) == ("none", "2.0", 404)

    @pytest.mark.parametrize(
        ("logger", "level", "message"),
        [("stdout", "INFO", "printed"), ("stderr", "WARNING", "complained")],
    )
    def test_what_is_printed(self, runner: Runner, logger: str, level: str, message: str) -> None:
        (entry,) = [one for one in entries(runner) if one["logger"] == logger]
        del entry["time"]
        assert entry == {
            "level": level,
            "logger": logger,
            "message": message,
            "model": "talkative",
            "version": "1.0",
            "worker": 9000,
        }

    def test_what_is_logged_names_its_requests(self, runner: Runner, request_id: str) -> None:
        (entry,) = [one for one in entries(runner) if one["logger"] == "mine"]
        assert (entry["level"], entry["message"]) == ("ERROR", "it went wrong")
        assert entry["request_ids"] == [request_id]
        assert entry["traceback"].endswith("RuntimeError: oh")

    def test_metrics(self, runner: Runner, request_id: str) -> None:
        lines = [one["message"] for one in entries(runner) if one["logger"].endswith("_METRICS")]
        assert [line.partition(".")[0] for line in lines] == ["QueueTime", "Seen"]
        assert f"requestID:{request_id}," in lines[1]


def test_a_record_that_is_no_json_is_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    source = Source(worker=1, model="m", version="1", error=True)
    write_worker_line(source, "\x1e{not json")
    assert json.loads(capfd.readouterr().err)["message"] == "{not json"


def test_an_answer_on_a_socket_without_a_name() -> None:
    fields = take_apart(' - - "GET /ping HTTP/1.1" ')
    assert (fields["path"], "model" in fields) == ("/ping", False)


class TestFiles:
    def test_a_file_is_replaced_when_it_is_full(self, tmp_path: Path) -> None:
        file = RollingFile(tmp_path / "a.log", most_bytes=10)
        for number in range(KEPT + 3):
            file.write(b"%d12345\n" % number)
        file.close()
        assert (tmp_path / "a.log").read_bytes() == b"712345\n"
        assert (tmp_path / "a.log.1").read_bytes() == b"612345\n"
        assert len(list(tmp_path.iterdir())) == KEPT + 1

    def test_a_file_is_replaced_on_another_day(self, tmp_path: Path) -> None:
        path = tmp_path / "a.log"
        path.write_text("yesterday\n")
        day = time.time() - 86_400
        os.utime(path, (day, day))
        file = RollingFile(path)
        for line in (b"today\n", b"still today\n"):
            file.write(line)
        file.close()
        assert path.read_text() == "today\nstill today\n"
        assert (tmp_path / "a.log.1").read_text() == "yesterday\n"

    def test_what_cannot_be_written_is_said_once(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "logs").write_text("in the way")
        logs = LogFiles({"LOG_LOCATION": str(tmp_path / "logs" / "here")})
        for _ in range(2):
            logs.warn("a warning")  # noqa: G010 - not that kind
        logs.close()
        lines = capfd.readouterr().out.splitlines()
        assert [line for line in lines if "cannot be written" in line] == [
            f"{tmp_path}/logs/here/ts_log.log: cannot be written, stdout has it: Not a directory"
        ]
        assert len([line for line in lines if line.endswith("main hatch_mar - a warning")]) == 2

    def test_each_kind_has_its_place(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        environ = {"LOG_LOCATION": str(tmp_path / "l"), "METRICS_LOCATION": str(tmp_path / "m")}

        async def scenario() -> None:
            logs = LogFiles(environ)
            logs.open()
            logs.access_log().add(' - /127.0.0.1:1 "GET / HTTP/1.1" ', 200, 0.0031)
            logs.tell_metric("TS_METRICS", "a.b:1.0")
            logs.tell_metric("MODEL_METRICS", "c.d:1.0")
            with logs.streams(9000, "m", "1.0") as (stdout, _):
                assert stdout is not None
                os.write(stdout, b"printed\n")
            logging.getLogger("hatch_mar.here").error("it\nbroke")
            logs.close()

        root = logging.getLogger()
        before, root.handlers = root.handlers, []
        try:
            asyncio.run(scenario())
        finally:
            root.handlers = before
        stamp = r"[-\dT:]{19},\d{3}"
        shapes = {
            "l/access_log.log": rf'{stamp} - /127.0.0.1:1 "GET / HTTP/1.1" 200 3\n',
            "l/model_log.log": rf"{stamp} \[INFO \] W-9000-m_1.0-stdout MODEL_LOG - printed\n",
            "m/ts_metrics.log": rf"{stamp} - a.b:1.0\n",
            "m/model_metrics.log": rf"{stamp} - c.d:1.0\n",
        }
        for name, shape in shapes.items():
            assert re.fullmatch(shape, (tmp_path / name).read_text()), name
        everything = (tmp_path / "l" / "ts_log.log").read_text()
        assert re.search(rf"{stamp} \[ERROR\] main hatch_mar.here - it\nbroke\n", everything)
        loggers = ("ACCESS_LOG", "MODEL_LOG", "TS_METRICS", "MODEL_METRICS")
        assert all(f" {name} - " in everything for name in loggers)
        assert sorted(capfd.readouterr().out.splitlines()) == sorted(everything.splitlines())
