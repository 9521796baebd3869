"""Where a runner's words go: its own log, the access log, the workers' output, lines of metrics.

`hatch-mar serve` writes to its stdout and stderr alone, for people or as JSON. The program
`torchserve` has files as well: see `hatch_mar.cli.torchserve.log_files`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.api.access_log import AccessLog, LineLog, write_to, write_to_stdout
from hatch_mar.cli.output import say
from hatch_mar.serve.output import Source, Streams, WorkerOutput, inherit
from hatch_mar.serve.worker_logs import RECORD, VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    from hatch_mar.cli.options import ServeOptions

LOG_FORMAT = "%(asctime)s [%(levelname)s] %(name)s - %(message)s"
_STDERR = 2


class Logs:
    """Lines for people, on stdout and stderr; workers write there themselves."""

    worker_environ: Mapping[str, str] = {}
    """What workers see of the environment on top, so that they log as is expected here."""

    def __init__(self, level: str = "warning") -> None:
        """Write nothing yet; records below `level` are never written."""
        self._level = level.upper()
        self._lines: dict[str, LineLog] = {}
        self._access: AccessLog | None = None

    def open(self) -> None:
        """Take what this process logs from now on."""
        logging.basicConfig(format=LOG_FORMAT, stream=sys.stderr, level=self._level)

    def announce(self, text: str) -> None:
        """Say what scripts wait for, and people read."""
        say(text)

    def warn(self, text: str) -> None:
        """Say what somebody should look into."""
        click.echo(text, err=True)

    def access_log(self) -> AccessLog:
        """Return the log that has a line for every answer."""
        self._access = AccessLog(asyncio.get_running_loop(), write_to_stdout)
        return self._access

    def streams(self, worker: int, model: str, version: str) -> AbstractContextManager[Streams]:
        """Return what a worker writes to."""
        return inherit(worker, model, version)

    def tell_metric(self, log: str, line: str) -> None:
        """Write a line of the log `TS_METRICS` or `MODEL_METRICS`."""
        if log not in self._lines:
            self._lines[log] = LineLog(
                asyncio.get_running_loop(), lambda block: self.write_metrics(log, block)
            )
        self._lines[log].add_line(f" - {line}")

    def write_metrics(self, log: str, block: bytes) -> None:  # noqa: ARG002 - for logs of several files
        """Write lines of `log`."""
        write_to_stdout(block)

    def close(self) -> None:
        """Write what still waits."""
        for lines in (*self._lines.values(), *([self._access] if self._access else ())):
            lines.flush()


def make_logs(options: ServeOptions) -> Logs:
    """Return the logs that `options` ask for."""
    if options.as_torchserve:
        from hatch_mar.cli.torchserve.log_files import LogFiles  # noqa: PLC0415 - few runners have files

        return LogFiles(options.environ)
    return JsonLogs(options.log_level) if options.log_format == "json" else Logs(options.log_level)


class JsonLogs(Logs):
    """A JSON object per line: what is asked for on stdout, everything else on stderr."""

    worker_environ: Mapping[str, str] = {VARIABLE: "json"}

    def __init__(self, level: str = "warning") -> None:
        """Write nothing yet."""
        super().__init__(level)
        self._output: WorkerOutput | None = None

    def open(self) -> None:
        """Take what this process logs from now on."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter())
        logging.basicConfig(handlers=[handler], level=self._level)

    def announce(self, text: str) -> None:
        """Say what scripts wait for."""
        say(render("INFO", "hatch_mar.runner", text))

    def warn(self, text: str) -> None:
        """Say what somebody should look into."""
        click.echo(render("WARNING", "hatch_mar.runner", text), err=True)

    def access_log(self) -> AccessLog:
        """Return the log that has an object for every answer."""
        self._access = JsonAccessLog(asyncio.get_running_loop(), write_to_stdout)
        return self._access

    def streams(self, worker: int, model: str, version: str) -> AbstractContextManager[Streams]:
        """Return what a worker writes to: its lines become objects."""
        if self._output is None:
            self._output = WorkerOutput(write_worker_line)
        return self._output.open(worker, model, version)

    def tell_metric(self, log: str, line: str) -> None:
        """Write a line of metrics as the message of an object."""
        write_to_stdout(f"{render('INFO', log, line)}\n".encode())

    def close(self) -> None:
        """Write what still waits."""
        super().close()
        if self._output is not None:
            self._output.close()


class JsonFormatter(logging.Formatter):
    """Renders a record of this process."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object, on one line."""
        more = {}
        if record.exc_info:
            more["traceback"] = self.formatException(record.exc_info)
        return render(record.levelname, record.name, record.getMessage(), **more)


class JsonAccessLog(AccessLog):
    """Has an object for every answer, with its fields apart."""

    def add(self, who_and_what: str, status: int, seconds: float, request_id: str = "") -> None:
        """Note one answer, which took `seconds`."""
        text = render(
            "INFO",
            "access",
            f"{who_and_what[3:]}{status} {int(seconds * 1000)}",
            **take_apart(who_and_what),
            status=status,
            duration_ms=round(seconds * 1000, 3),
            **({"request_id": request_id} if request_id else {}),
        )
        self._collect(f"{text}\n")


@lru_cache(maxsize=1024)
def take_apart(who_and_what: str) -> Mapping[str, Any]:
    """Return the fields of an access line; see `hatch_mar.api.access_log.describe`."""
    from hatch_mar.api.targets import find_target_of  # noqa: PLC0415 - for this log alone

    who, _, what = who_and_what[3:].partition(' "')
    line = what.removesuffix('" ')
    method, _, rest = line.partition(" ")
    path, _, protocol = rest.rpartition(" ")
    fields = {"client": who[1:], "method": method, "path": path, "protocol": protocol}
    target = find_target_of(path.encode("latin-1", "replace"))
    if target is not None and target.model:
        fields["model"] = target.model
        if target.version:
            fields["version"] = target.version
    return fields


def write_worker_line(source: Source, line: str) -> None:
    """Write on stderr what a worker printed or logged."""
    fields: dict[str, Any] = {
        "level": "WARNING" if source.error else "INFO",
        "logger": "stderr" if source.error else "stdout",
        "message": line,
    }
    if line.startswith(RECORD):
        try:
            fields |= json.loads(line[len(RECORD) :])
        except ValueError:  # it is a handler's own, and longer than a line may be
            fields["message"] = line[len(RECORD) :]
    level, logger, message = (fields.pop(name) for name in ("level", "logger", "message"))
    text = render(
        level,
        logger,
        message,
        model=source.model,
        version=source.version,
        worker=source.worker,
        **fields,
    )
    write_to(_STDERR, f"{text}\n".encode())


def render(level: str, logger: str, message: str, **more: Any) -> str:  # noqa: ANN401 - JSON
    """Return an object of the log, on one line."""
    time = datetime.now().astimezone().isoformat(timespec="milliseconds")
    fields = {"time": time, "level": level, "logger": logger, "message": message, **more}
    return json.dumps(fields, default=str)
