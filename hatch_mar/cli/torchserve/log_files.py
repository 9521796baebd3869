"""TorchServe's log files, and all of them on stdout.

    $LOG_LOCATION (logs)/      access_log.log  ts_log.log  model_log.log
    $METRICS_LOCATION (logs)/  ts_metrics.log  model_metrics.log

    access_log.log    2026-11-21T07:48:53,250 - /127.0.0.1:49404 "GET /ping HTTP/1.1" 200 3
    model_log.log     2026-11-21T07:48:53,250 [INFO ] W-9000-m_1.0-stdout MODEL_LOG - a line
    ts_metrics.log    2026-11-21T07:48:53,250 - Name.Unit:1.0|#Level:Host|#hostname:h,timestamp:1

stdout and ts_log.log have everything, each line with its level, thread and logger. A file is
replaced on a new day or when it has 100 MB; five old ones are kept, as `access_log.log.1` and on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.api.access_log import AccessLog, write_to_stdout
from hatch_mar.cli.logs import Logs
from hatch_mar.cli.output import say
from hatch_mar.serve.output import Source, Streams, WorkerOutput
from hatch_mar.serve.worker_logs import VARIABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

MOST_BYTES = 100_000_000
KEPT = 5
_AFTER_TIME = re.compile(rb"^(.{23}) - ", re.MULTILINE)
_LEVELS = {"WARNING": "WARN ", "CRITICAL": "FATAL"}


class LogFiles(Logs):
    """TorchServe's files; where they cannot be written, stdout has everything still."""

    worker_environ: Mapping[str, str] = {VARIABLE: "torchserve"}

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Write where `environ`, by default the process's own, says; nothing yet."""
        super().__init__("info")
        self._environ = os.environ if environ is None else environ
        self._files: dict[str, RollingFile] = {}
        self._output: WorkerOutput | None = None

    def open(self) -> None:
        """Take what this process logs from now on."""
        for name in ("access_log", "ts_log", "model_log", "ts_metrics", "model_metrics"):
            self._file(name)  # people follow them before there is anything to read
        console = _Console(self)
        console.setFormatter(logging.Formatter("%(message)s"))
        logging.basicConfig(handlers=[console], level=self._level)

    def warn(self, text: str) -> None:
        """Say what somebody should look into."""
        for line in text.splitlines():
            self.write_everywhere("WARN ", "main", "hatch_mar", line)

    def access_log(self) -> AccessLog:
        """Return the log that has a line for every answer."""
        self._access = AccessLog(asyncio.get_running_loop(), self._write_access)
        return self._access

    def streams(self, worker: int, model: str, version: str) -> AbstractContextManager[Streams]:
        """Return what a worker writes to: its lines go to the models' log."""
        if self._output is None:
            self._output = WorkerOutput(self._write_worker)
        return self._output.open(worker, model, version)

    def write_metrics(self, log: str, block: bytes) -> None:
        """Write lines of `log`, TS_METRICS or MODEL_METRICS."""
        self._write_block(log, block)

    def write_everywhere(self, level: str, thread: str, logger: str, text: str) -> bytes:
        """Write a line to stdout and ts_log.log; return it."""
        line = f"{stamp()} [{level}] {thread} {logger} - {text}\n"
        block = line.encode("utf-8", "backslashreplace")
        self._tell(block)
        return block

    def close(self) -> None:
        """Write what still waits, and close the files."""
        super().close()
        if self._output is not None:
            self._output.close()
        for file in self._files.values():
            file.close()

    def _write_access(self, block: bytes) -> None:
        self._write_block("ACCESS_LOG", block)

    def _write_block(self, log: str, block: bytes) -> None:
        """Write lines of a log that has a file of its own, and elsewhere with its name in them."""
        self._file(log.lower()).write(block)
        self._tell(_AFTER_TIME.sub(rb"\1 [INFO ] main %b - " % log.encode(), block))

    def _write_worker(self, source: Source, line: str) -> None:
        level = "WARN " if source.error else "INFO "
        block = self.write_everywhere(level, source.thread, "MODEL_LOG", line)
        self._file("model_log").write(block)

    def _tell(self, block: bytes) -> None:
        write_to_stdout(block)
        self._file("ts_log").write(block)

    def _file(self, name: str) -> RollingFile:
        if name not in self._files:
            variable = "METRICS_LOCATION" if name.endswith("_metrics") else "LOG_LOCATION"
            directory = Path(self._environ.get(variable) or "logs")
            self._files[name] = RollingFile(directory / f"{name}.log")
        return self._files[name]


class RollingFile:
    """A log file that makes room for a new one, by size and by day."""

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        """Append to `path`, or to nothing if that cannot be: that is said once, on stdout."""
        self._handler: RotatingFileHandler | None = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handler = _Rotating(path, most_bytes)
        except OSError as error:
            say(f"{path}: cannot be written, stdout has it: {error.strerror or error}")

    def write(self, block: bytes) -> None:
        """Append whole lines."""
        if self._handler is not None:
            text = block.decode("utf-8", "backslashreplace")
            self._handler.handle(logging.makeLogRecord({"msg": text}))

    def close(self) -> None:
        """Close the file."""
        if self._handler is not None:
            self._handler.close()


class _Rotating(RotatingFileHandler):
    """Adds TorchServe's other reason for a new file: a new day."""

    terminator = ""

    def __init__(self, path: Path, most_bytes: int) -> None:
        super().__init__(path, maxBytes=most_bytes, backupCount=KEPT, encoding="utf-8")
        self._day = time.localtime(path.stat().st_mtime)[:3]

    def shouldRollover(self, record: logging.LogRecord) -> int:  # noqa: N802 - logging's name
        today = time.localtime()[:3]
        if today != self._day:
            self._day = today
            return int(Path(self.baseFilename).stat().st_size > 0)
        return super().shouldRollover(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Lose the line: a disk that is full must not fill stderr as well."""


class _Console(logging.Handler):
    """Takes what this process logs."""

    def __init__(self, logs: LogFiles) -> None:
        super().__init__()
        self._logs = logs

    def emit(self, record: logging.LogRecord) -> None:
        level = _LEVELS.get(record.levelname, f"{record.levelname:5}")
        thread = "main" if record.threadName == "MainThread" else str(record.threadName)
        self._logs.write_everywhere(level, thread, record.name, self.format(record))


def stamp() -> str:
    """Return the time as these logs have it: `2026-11-21T07:48:53,250`."""
    now = time.time()
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.localtime(now))},{int(now * 1000) % 1000:03d}"
