"""`hatch-mar explain-batching` asks a runner, and says what it hears."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from hatch_mar.cli.explain_batching import render
from tests.support.archives import write_mar
from tests.support.runner import Runner, start_runner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ECHO = """
    def handle(data, context):
        return None if data is None else [row["body"] for row in data]
"""


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hatch_mar", "explain-batching", *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=env)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Return a runner that has answered 20 requests, one after the other."""
    directory = tmp_path_factory.mktemp("echo")
    mar = write_mar(directory, "echo", ECHO, config="batchSize: 4\nmaxQueueDelay: 500\n")
    with start_runner(str(mar)) as runner:
        for _ in range(20):
            assert httpx.post(f"{runner.url}/predictions/echo", content=b"a").status_code == 200
        yield runner


def test_for_people(runner: Runner) -> None:
    result = run("echo", "--url", runner.management_url)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[:2] == [
        "echo 1.0",
        "  batchSize=4, jobQueueSize=100, maxQueueDelay=500, workers=1",
    ]
    assert re.fullmatch(r"the latest 20 batches: 20 requests in \d[\d.]* s", lines[3])
    assert "      1        20  100 %  ########################################" in lines
    assert "  batches answered  20" in lines
    assert "  - a worker was idle when 100 % of requests came: they went alone" in lines


def test_for_programs(runner: Runner) -> None:
    result = run("echo", "--version", "1.0", "--url", f"{runner.management_url}/", "--json")
    assert result.returncode == 0
    found = json.loads(result.stdout)
    assert (found["modelName"], found["modelVersion"]) == ("echo", "1.0")
    assert found["batchSizes"] == {"1": 20}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nobody"], "Model not found: nobody"),
        (["echo", "--version", "9"], "Model version: 9 does not exist for model: echo"),
    ],
)
def test_a_model_that_is_not_there(runner: Runner, arguments: list[str], words: str) -> None:
    result = run(*arguments, "--url", runner.management_url)
    assert result.returncode == 6
    assert result.stderr.startswith(f"hatch-mar: {runner.management_url}/models/")
    assert words in result.stderr


def test_nobody_is_there() -> None:
    result = run("echo", "--url", "http://127.0.0.1:9")
    assert result.returncode == 6
    assert "http://127.0.0.1:9: no runner answers there" in result.stderr
    assert result.stderr.rstrip().endswith("name its management address with --url")


def test_what_is_no_url() -> None:
    result = run("echo", "--url", "localhost:8081", "--json")
    assert result.returncode == 6
    assert "no URL of a runner" in json.loads(result.stdout)["problems"][0]["message"]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:abc",
        "http://[",
        "http://127.0.0.1 x",
        "http://" + 80 * "a" + ".x",
    ],
)
def test_what_is_nearly_a_url(url: str) -> None:
    result = run("echo", "--url", url)
    assert result.returncode == 6
    assert result.stderr.startswith(f"hatch-mar: {url}: no runner answers there")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"SSH-2.0-OpenSSH\r\n", "no runner answers there"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "no runner answers there"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"why": []}', "no management API of a hatch-mar runner"),
    ],
    ids=["no HTTP", "cut off", "another document"],
)
def test_somebody_who_says_something_else(said: bytes, words: str) -> None:
    def speak(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        speaker = threading.Thread(target=speak, args=(listener,))
        speaker.start()
        result = run("echo", "--url", f"http://127.0.0.1:{listener.getsockname()[1]}")
        speaker.join()
    assert result.returncode in {1, 6}
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_token_that_no_header_holds() -> None:
    env = {**os.environ, "HATCH_MAR_MANAGEMENT_TOKEN": "secret\nX"}
    result = run("echo", "--url", "http://127.0.0.1:9", env=env)
    assert result.returncode == 1
    assert result.stderr.startswith("hatch-mar: HATCH_MAR_MANAGEMENT_TOKEN: holds a line break")
    assert "secret" not in result.stderr


def test_somebody_else_is_there(runner: Runner) -> None:
    """The inference port knows of no models to manage."""
    result = run("echo", "--url", runner.url)
    assert result.returncode in {1, 6}
    assert result.stderr.startswith(f"hatch-mar: {runner.url}/models/echo/batching: ")


def test_everything_that_may_be_known_is_shown() -> None:
    times = {"median": 1.0, "p99": 2.5, "mean": 1.25}
    found: dict[str, Any] = {
        "modelName": "m",
        "modelVersion": "2",
        "limits": {"batchSize": 8, "maxBatchDelay": None, "jobQueueSize": 100, "workers": 2},
        "seen": {
            "batches": 3,
            "requests": 12,
            "seconds": 1.5,
            "requestsPerSecond": 8.0,
            "utilization": 0.25,
            "queueTime": times,
            "computeTime": times,
            "latency": times,
        },
        "batchSizes": {"4": 1, "8": 3},
        "cost": {"fixed": 20, "perItem": 1, "source": "given", "rSquared": None},
        "throughput": {"capacity": 571, "attainable": 2000, "efficiency": 0.2857, "knee": 180},
        "predictedLatency": 30.5,
        "counts": {"batches": 4, "failedBatches": 0},
        "why": ["because"],
        "suggestions": [
            {"key": "batchSize", "value": 64, "why": "more"},
            {"key": "maxBatchDelay", "value": None, "why": "less"},
        ],
    }
    found["counts"] = (
        dict.fromkeys(
            (
                *("halvedBatches", "refusedQueueFull", "refusedNoIdleWorker", "refusedWait"),
                *("deadlinesMissed", "clientTimeouts", "clientsGone"),
            ),
            0,
        )
        | found["counts"]
    )
    assert list(render(found)) == [
        "m 2",
        "  batchSize=8, jobQueueSize=100, workers=2",
        "",
        "the latest 3 batches: 12 requests in 1.5 s",
        "  requests      8 per second",
        "  workers busy  25 % of the time",
        "  queue         median 1 ms, p99 2.5 ms, mean 1.25 ms",
        "  compute       median 1 ms, p99 2.5 ms, mean 1.25 ms",
        "  latency       median 1 ms, p99 2.5 ms, mean 1.25 ms",
        "                mean predicted: at most 30.5 ms",
        "  cost          20 ms a batch and 1 ms a request, as measured before",
        "  capacity      571 requests per second, 29 % of what is attainable",
        "  knee          batches of 180 have 90 % of what is attainable",
        "",
        "batch sizes since the start",
        "      4         1   25 %  #############",
        "      8         3   75 %  ########################################",
        "",
        "counted since the start",
        "  batches answered  4",
        "",
        "why",
        "  - because",
        "",
        "worth trying",
        "  - batchSize=64: more",
        "  - leave maxBatchDelay out: less",
    ]
