"""Run a command; print as JSON what it took: `measure.py DIRECTORY PATTERN COMMAND...`.

The files that match PATTERN in DIRECTORY are its output: their way to the disk counts as its time,
whoever the command is. This program is small on purpose: the greatest memory of a process survives
`exec`, so a child of a big one looks big. TMPDIR is watched every few milliseconds.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path


def main() -> None:
    directory, pattern, *command = sys.argv[1:]
    temporary = Path(os.environ["TMPDIR"])
    most, ended = [0], threading.Event()
    watch = threading.Thread(target=_watch, args=(temporary, most, ended))
    watch.start()
    at = time.perf_counter()
    process = os.posix_spawnp(
        command[0],
        command,
        os.environ,
        file_actions=[(os.POSIX_SPAWN_DUP2, 2, 1)],  # stdout is for the result
    )
    _, status = os.waitpid(process, 0)
    outputs = list(Path(directory).glob(pattern))
    for path in outputs:
        _sync(path)
    seconds = time.perf_counter() - at
    ended.set()
    watch.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "seconds": seconds,
        "cpu": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
        "temporary_mb": most[0] / 1e6,
        "output_mb": sum(path.stat().st_size for path in outputs) / 1e6,
    }
    print(json.dumps(result))
    sys.exit(os.waitstatus_to_exitcode(status) or not outputs)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _watch(directory: Path, most: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.01):
        most[0] = max(most[0], sum(map(_size, directory.rglob("*"))))


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return 0


if __name__ == "__main__":
    main()
