"""How a download is told of: by a bar on a terminal, by a line every few seconds in a log."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

import click

from hatch_mar.cli.output import progress, visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from hatch_mar.weights.cache import Cache
    from hatch_mar.weights.fetch import Progress
    from hatch_mar.weights.reference import Reference

INTERVAL = 5.0
"""Seconds from one line of a log to the next."""
_SHOW_CURSOR = "\x1b[?25h"


@contextmanager
def told(
    target: str, size: int | None, *, alone: bool = True, verb: str = "fetching"
) -> Iterator[Progress]:
    """Yield the `progress` of a fetch of `target`, that shows it on standard error.

    Args:
        target: What is fetched, as the author named it.
        size: Bytes of it, if they are known before the store says.
        alone: Whether nothing else is fetched at the same time; two bars cannot share a terminal.
        verb: What is done to it.
    """
    label = f"{verb} {visible(target)}"
    words = f"{label}: waiting for its source, or for another process that is at it"
    waiting = threading.Timer(INTERVAL, click.echo, (words,), {"err": True})
    waiting.daemon = True
    with ExitStack() as stack:
        stack.callback(waiting.cancel)
        waiting.start()
        if alone and sys.stderr.isatty():
            show: Progress = _Bar(label, size, stack)
        else:
            show = stack.enter_context(_Log(label, size))

        def tell(done: int, total: int | None) -> None:
            waiting.cancel()
            show(done, total)

        yield tell


def fetch_told(reference: Reference, cache: Cache) -> Path:
    """Fetch one file, and show how far that is.

    Raises:
        WeightsError: as `hatch_mar.weights.fetch.fetch`.
    """
    from hatch_mar.weights.fetch import fetch  # noqa: PLC0415 - see hatch_mar.cli

    with told(reference.target, reference.size) as tell:
        return fetch(reference, cache, progress=tell)


def give_back_terminal() -> None:
    """Show the cursor, which a bar hides: for who ends a fetch without letting it end its bar."""
    if sys.stderr.isatty():
        click.echo(_SHOW_CURSOR, err=True, nl=False)


def render_progress(done: int, size: int | None) -> str:
    """Return `12 % of 5.0 GB`, or what is here where nobody knows how much there is."""
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    if not size:
        return render_size(done)
    return f"{100 * done // size} % of {render_size(size)}"


class _Bar:
    """A bar, which begins when it is known how much there is."""

    def __init__(self, label: str, size: int | None, stack: ExitStack) -> None:
        self._label = label
        self._size = size
        self._stack = stack
        self._here = 0
        self._advance: Callable[[int], None] | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """See `hatch_mar.weights.fetch.Progress`."""
        size = self._size if total is None else total
        if self._advance is None:
            if not size:
                return
            self._advance = self._stack.enter_context(progress(self._label, size))
        self._advance(done - self._here)
        self._here = done


class _Log:
    """Lines: bytes, rate and time left, also while nothing comes. A quick fetch needs none."""

    def __init__(
        self,
        label: str,
        size: int | None,
        *,
        interval: float = INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._label = label
        self._size = size
        self._interval = interval
        self._clock = clock
        self._told: tuple[float, int] | None = None
        """When the last line was due, and the bytes that were here; at first those kept before."""
        self._here = 0
        self._over = threading.Event()
        self._teller: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._teller is not None:
            self._teller.join()  # or its last line comes after what is said next

    def __call__(self, done: int, total: int | None) -> None:
        """See `hatch_mar.weights.fetch.Progress`."""
        self._here = done
        self._size = self._size if total is None else total
        if self._told is None:
            self._told = self._clock(), done
            self._teller = threading.Thread(target=self._tell_often, daemon=True)
            self._teller.start()

    def _tell_often(self) -> None:
        while not self._over.wait(self._interval):
            self.tell()

    def tell(self) -> None:
        """Print a line."""
        assert self._told is not None
        now, here = self._clock(), self._here
        rate = max(0.0, (here - self._told[1]) / (now - self._told[0]))
        click.echo(f"{self._label}: {', '.join(_facts(here, self._size, rate))}", err=True)
        self._told = now, here


def _facts(done: int, size: int | None, rate: float) -> Iterable[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    yield f"{render_size(done)}, {render_progress(done, size)}" if size else render_size(done)
    yield f"{render_size(int(rate))}/s"
    if size and rate:
        yield f"{render_seconds((size - done) / rate)} left"


def render_seconds(seconds: float) -> str:
    """Return `35 s`, `12 min`, `5 h` or `3 days`: how long something takes, or how old it is."""
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"
