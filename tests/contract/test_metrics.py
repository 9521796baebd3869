"""Metrics and logs: TorchServe's own, and ours, after the same requests."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.support.exchange import Call, exchange
from tests.support.scenes import PROJECTS, Model
from tests.support.torchserve import TorchServe, TorchServeHome, start_torchserve

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Ask = Callable[[str], tuple["Told", "Told"]]

SETTINGS: Mapping[str, Mapping[str, str]] = {
    "declared": {
        "metrics_mode": "prometheus",
        "metrics_config": str(PROJECTS / "metrics.yaml"),
    },
    "detected": {"metrics_mode": "prometheus", "model_metrics_auto_detect": "true"},
    "legacy": {"metrics_mode": "legacy", "model_metrics_auto_detect": "true"},
}
FILES = ("access_log", "ts_log", "model_log", "ts_metrics", "model_metrics")
ASKED = ("/predictions/m", "/predictions/m/1.0", "/predictions/none", "/predictions/m/9.0", "/nil")
_LATENCY = r'^ts_queue_latency_microseconds\{model_name="m",model_version="1\.0"'
_MACHINE = ("DiskAvailable", "MemoryUtilization")
"""The last ones of ours and of theirs."""
ENOUGH = {
    "declared": [r"^Spent_count\{.* 2\.0$", r'^Layered\{Other="one"', r"^PredictionTime\{"],
    "detected": [
        *(r"^Typed\{.* 8\.0$", r'^Layered\{Layer="one"', r"^PredictionTime\{", _LATENCY),
        *(rf"^{name}\{{" for name in _MACHINE),
    ],
    "legacy": [_LATENCY],
}
"""What lines of `/metrics` begin with, or are, once they are the last of both predictions."""
LOGGED = ("Requests2XX", "Requests4XX", "QueueTime", "WorkerThreadTime", *_MACHINE)
"""What `ts_metrics.log` has of everything: it is not written together with `access_log.log`."""
PRINTED = ("printed at load", "printed in handle", "written to stderr", "logged", "on two lines")
PRINTS = 11
"""How many lines begin so: stdout and stderr of a worker are pipes that are read one by one."""
VARYING = {
    *("Requests2XX", "QueueTime", "WorkerThreadTime", "WorkerLoadTime", "PredictionTime"),
    *("ts_inference_latency_microseconds", "ts_queue_latency_microseconds", "CPUUtilization"),
    *("MemoryUsed", "MemoryAvailable", "MemoryUtilization"),
    *("DiskUsage", "DiskUtilization", "DiskAvailable"),
}
STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} ")
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a server had to say."""

    text: str
    """Of `/metrics`."""
    logs: Mapping[str, list[str]]
    """The lines of its log files, by name."""
    output: list[str]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("measuring")
    Model(name="m", project="measuring").write(directory)
    return directory


@pytest.fixture(scope="module")
def ask(torchserve_home: TorchServeHome, store: Path) -> Ask:
    """Return a function that asks both servers in one of the settings, once."""
    return cache(
        lambda name: (collect(torchserve_home, store, name), collect(None, store, name)),
    )


def collect(home: TorchServeHome | None, store: Path, name: str) -> Told:
    with start_torchserve(home, store, settings=SETTINGS[name]) as server:
        for path in ASKED:
            exchange(server.url, Call(method="GET", path=path))
        deadline = time.monotonic() + _PATIENCE
        while not has_said_all(server, name):
            assert time.monotonic() < deadline, server.output()
            time.sleep(0.05)
        return Told(
            text=scrape(server),
            logs={one: read_log(server, one).splitlines() for one in FILES},
            output=server.output().splitlines(),
        )


def scrape(server: TorchServe) -> str:
    return exchange(server.metrics_url, Call(method="GET", path="/metrics")).body.decode()


def read_log(server: TorchServe, name: str) -> str:
    return (server.home / "logs" / f"{name}.log").read_text()


def has_said_all(server: TorchServe, name: str) -> bool:
    text = scrape(server)
    logs = {one: read_log(server, one) for one in FILES}
    measured = logs["model_metrics"]
    said = (logs["model_log"], logs["ts_log"], server.output())
    return (
        all(re.search(line, text, re.MULTILINE) for line in ENOUGH[name])
        and all(len(printed(lines.splitlines())) >= PRINTS for lines in said)
        and all(f"GET {path} " in logs["access_log"] for path in ASKED)
        and (name != "legacy" or measured.count("|#Layer:one|") == 2)
        and (name != "legacy" or measured.count("PredictionTime") == 2)
        and (name != "legacy" or all(f"{one}." in logs["ts_metrics"] for one in LOGGED))
    )


def printed(lines: list[str]) -> list[str]:
    """Return what handlers print and log, of these lines."""
    return [
        line
        for line in lines
        if "MODEL_LOG" in line and line.partition(" - ")[2].startswith(PRINTED)
    ]


def samples(text: str) -> dict[str, str]:
    """Return the samples of an exposition, without the zeros of what has never counted."""
    rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {
        labels: "" if labels.partition("{")[0] in VARYING else value
        for labels, value in rows
        if not (labels.startswith("Requests") and value == "0.0")
    }


def headings(text: str) -> list[str]:
    return sorted(line for line in text.splitlines() if line.startswith("#"))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_metrics_are_published(ask: Ask, name: str) -> None:
    theirs, ours = ask(name)
    assert headings(ours.text) == headings(theirs.text)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_same_samples_are_published(ask: Ask, name: str) -> None:
    theirs, ours = ask(name)
    assert samples(ours.text) == samples(theirs.text)


def test_every_heading_is_followed_by_its_samples(ask: Ask) -> None:
    name = ""
    for line in ask("detected")[1].text.splitlines():
        if line.startswith("# HELP"):
            name = line.split()[2]
        assert line.startswith((f"# HELP {name} ", f"# TYPE {name} ", name)), line


def measured(told: Told) -> Counter[str]:
    """Return the lines of handlers' metrics without their times, and how often they are there."""
    return Counter(
        re.sub(r"timestamp:\d+$", "", re.sub(r"(?<=PredictionTime\.ms:)[\d.]+", "", blank(line)))
        for line in told.logs["model_metrics"]
        if "AtLoad" not in line  # loading is no request here: nobody could look its id up
    )


def blank(line: str) -> str:
    assert STAMP.match(line), line
    return UUID.sub("ID", STAMP.sub("", line))


def test_handlers_metrics_are_logged_alike(ask: Ask) -> None:
    theirs, ours = ask("legacy")
    assert measured(ours) == measured(theirs)


def test_the_servers_metrics_are_logged_alike(ask: Ask) -> None:
    kinds = [
        {
            re.sub(r":[-+\d.eE]+\||timestamp:\d+$", "", blank(line))
            for line in told.logs["ts_metrics"]
        }
        for told in ask("legacy")
    ]
    assert kinds[0] == kinds[1]


def test_nothing_is_logged_where_it_is_published(ask: Ask) -> None:
    for told in ask("detected"):
        assert told.logs["ts_metrics"] == told.logs["model_metrics"] == []


def test_access_lines(ask: Ask) -> None:
    lines = [
        [
            re.sub(r":\d+ | \d+$", " ", blank(line))
            for line in told.logs["access_log"]
            if any(f"GET {path} " in line for path in ASKED)
        ]
        for told in ask("declared")
    ]
    assert len(lines[0]) == len(ASKED)
    assert lines[0] == lines[1]


@pytest.mark.parametrize("log", ["model_log", "ts_log", "output"])
def test_what_handlers_print_and_log(ask: Ask, log: str) -> None:
    lines = [
        Counter(map(blank, printed(told.output if log == "output" else told.logs[log])))
        for told in ask("declared")
    ]
    assert lines[0].total() == PRINTS
    assert lines[0] == lines[1]


@pytest.mark.parametrize("logger", ["ACCESS_LOG", "TS_METRICS", "MODEL_METRICS"])
def test_everything_is_on_stdout_with_its_logger(ask: Ask, logger: str) -> None:
    for told in ask("legacy"):
        shape = re.compile(STAMP.pattern + rf"\[INFO \] \S+ {logger} - ")
        assert any(shape.match(line) for line in told.output)
        assert any(shape.match(line) for line in told.logs["ts_log"])
