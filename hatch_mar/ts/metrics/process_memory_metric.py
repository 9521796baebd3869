"""`ts.metrics.process_memory_metric`: how much memory processes have."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TextIO

KIBIBYTE = 1024

logger = logging.getLogger("hatch_mar.model")


def get_cpu_usage(pid: int | str) -> int:
    """Return the bytes of memory that process `pid` has resident; 0 if there is none."""
    try:
        status = Path(f"/proc/{int(pid)}/status").read_text(encoding="utf-8")
    except (OSError, ValueError):
        logger.error("there is no process %s", pid)  # noqa: TRY400 - the traceback says no more
        return 0
    lines = (line.split() for line in status.splitlines())
    return next((int(words[1]) * KIBIBYTE for words in lines if words[0] == "VmRSS:"), 0)


def check_process_mem_usage(stdin: TextIO) -> None:
    """Log the memory of each process of the first line of `stdin`, separated by commas."""
    for pid in filter(None, stdin.readline().strip().split(",")):
        logger.info("%s:%d", pid, get_cpu_usage(pid))
