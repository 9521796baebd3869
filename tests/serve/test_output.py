"""What workers print becomes lines that say who printed them."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hatch_mar.serve.output import Source, WorkerOutput, inherit

if TYPE_CHECKING:
    from collections.abc import Iterator

Lines = queue.Queue[tuple[Source, str]]
_PATIENCE = 30


@pytest.fixture
def lines() -> Lines:
    return queue.Queue()


@pytest.fixture
def output(lines: Lines) -> Iterator[WorkerOutput]:
    found = WorkerOutput(lambda source, line: lines.put((source, line)))
    yield found
    found.close()


def run(output: WorkerOutput, code: str) -> None:
    with output.open(9000, "m", "1.0") as (stdout, stderr):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=stdout, stderr=stderr)
    assert process.wait() == 0


def take(lines: Lines, count: int) -> list[tuple[str, str]]:
    found = [lines.get(timeout=_PATIENCE) for _ in range(count)]
    return [(source.thread, line) for source, line in found]


def test_lines_say_where_they_come_from(output: WorkerOutput, lines: Lines) -> None:
    run(output, "import sys; print('a\\nb'); print('c', file=sys.stderr)")
    assert sorted(take(lines, 3)) == [
        ("W-9000-m_1.0-stderr", "c"),
        ("W-9000-m_1.0-stdout", "a"),
        ("W-9000-m_1.0-stdout", "b"),
    ]


def test_the_last_line_needs_no_end(output: WorkerOutput, lines: Lines) -> None:
    run(output, "print('a', end='')")
    assert take(lines, 1) == [("W-9000-m_1.0-stdout", "a")]


def test_what_is_no_text_is_escaped(output: WorkerOutput, lines: Lines) -> None:
    run(output, "import sys; sys.stdout.buffer.write(b'\\xff\\r\\n')")
    assert take(lines, 1) == [("W-9000-m_1.0-stdout", "\\xff")]


def test_a_line_without_an_end_does_not_fill_the_memory(output: WorkerOutput, lines: Lines) -> None:
    run(output, "print('x' * 300_000)")
    found: list[str] = []
    while sum(map(len, found)) < 300_000:
        found += [line for _, line in take(lines, 1)]
    assert max(map(len, found)) <= 1 << 17
    assert "".join(found) == "x" * 300_000


def test_what_was_written_before_the_end_is_read(lines: Lines) -> None:
    output = WorkerOutput(lambda source, line: lines.put((source, line)))
    with output.open(1, "m", "1") as (stdout, _):
        assert stdout is not None
        kept = os.dup(stdout)
    os.write(kept, b"".join(b"%d\n" % number for number in range(5000)))
    output.close()
    assert lines.qsize() == 5000
    os.close(kept)


def test_by_default_workers_write_where_we_do() -> None:
    with inherit(9000, "m", "1.0") as streams:
        assert streams == (None, None)
