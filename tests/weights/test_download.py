"""Several connections at once, and everything that may happen to them."""

from __future__ import annotations

import hashlib
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hatch_mar.errors import DigestMismatchError, WeightsError
from hatch_mar.weights.download import Download, Lanes, Order
from hatch_mar.weights.fetch import Patience, acquire, fetch
from hatch_mar.weights.partial import Origin, Partial, notes_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from hatch_mar.weights.cache import Cache
    from hatch_mar.weights.reference import Reference

    Refer = Callable[..., Reference]

KIB = 1 << 10
DATA = bytes(range(256)) * 12_000
EAGER = Lanes(most=4, part=64 * KIB, smallest=1, idle=0.005)
"""Open another connection whenever the network is waited for at all."""


def _slow(site: Any) -> None:
    """Let the first connection bring a little, and then nothing."""
    site.fail(truncate=100 * KIB, stall=True)


def test_parts_come_over_several_connections(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    """While the first one stalls, and what it began is missing until it is given up."""
    _slow(site)
    path = fetch(refer(site("/w.pt")), cache, patience=haste, lanes=EAGER)
    assert path.read_bytes() == DATA
    parts = [line for line in site.asked[1:] if not line.endswith("-")]
    assert len(parts) > 10
    assert len(set(parts)) == len(parts), "nothing is asked for twice"


def test_progress_of_several_connections(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    _slow(site)
    told: list[tuple[int, int | None]] = []
    threads = set()

    def note(done: int, total: int | None) -> None:
        told.append((done, total))
        threads.add(threading.current_thread())

    fetch(refer(site("/w.pt")), cache, patience=haste, lanes=EAGER, progress=note)
    assert told[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert threads == {threading.current_thread()}


def test_a_server_without_versions_gets_one_connection(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    site.tags = False
    _slow(site)
    fetch(refer(site("/w.pt")), cache, patience=haste, lanes=EAGER)
    assert site.asked == ["/w.pt", f"/w.pt bytes={100 * KIB}-"]


def test_a_server_without_ranges_is_taken_at_its_word(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    site.ranges = False
    _slow(site)
    assert fetch(refer(site("/w.pt")), cache, patience=haste, lanes=EAGER).read_bytes() == DATA
    assert site.asked[-1].endswith("-"), "the last one is sent the whole file"


def test_a_server_that_minds_several_connections(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    _slow(site)
    site.fail(status=429)
    assert fetch(refer(site("/w.pt")), cache, patience=haste, lanes=EAGER).read_bytes() == DATA


def test_connections_that_break_in_turn(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    _slow(site)
    site.fail(5, truncate=10 * KIB)
    assert fetch(refer(site("/w.pt")), cache, patience=haste, lanes=EAGER).read_bytes() == DATA


def test_a_file_that_changes_under_way(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    """The lock is of the new bytes; what the first connection brought is of the old ones."""
    old = bytes(reversed(DATA))
    site.fail(truncate=100 * KIB, stall=True, becomes=DATA)
    reference = refer(site("/w.pt", old), data=DATA)
    assert fetch(reference, cache, patience=haste, lanes=EAGER).read_bytes() == DATA


def test_a_server_whose_ranges_are_wrong(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    """It says that it sends what was asked for, and sends the beginning."""
    _slow(site)
    other = {"Content-Range": f"bytes {164 * KIB}-{228 * KIB - 1}/{len(DATA)}"}
    site.fail(truncate=0, headers=other)
    assert fetch(refer(site("/w.pt")), cache, patience=haste, lanes=EAGER).read_bytes() == DATA


@pytest.mark.parametrize("claimed", [len(DATA) - 1, len(DATA) + 1])
def test_a_length_that_is_not_the_locked_one(
    site: Any, cache: Cache, refer: Refer, patience: Patience, claimed: int
) -> None:
    site.fail(length=claimed)
    with pytest.raises(DigestMismatchError, match=f"{claimed} bytes, not {len(DATA)}"):
        fetch(refer(site("/w.pt")), cache, patience=patience)


def test_a_length_that_is_too_small(site: Any, cache: Cache, refer: Refer) -> None:
    """Nobody knows better, so what comes is what there is, and the digest tells."""
    site.fail(length=1000)
    with pytest.raises(DigestMismatchError, match="sha256 "):
        fetch(refer(site("/w.pt"), sized=False), cache)
    assert not notes_of(cache.partial_of(refer("/").sha256)).exists()


def test_a_length_that_is_too_great(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    site.fail(9, length=len(DATA) + 1)
    with pytest.raises(WeightsError, match="the connection broke"):
        fetch(refer(site("/w.pt"), sized=False), cache, patience=patience)


def test_a_retry_after_is_waited(
    site: Any, cache: Cache, refer: Refer, patience: Patience, waits: list[float]
) -> None:
    site.fail(status=503, headers={"Retry-After": "7"})
    site.fail(status=429, headers={"Retry-After": "100000"})
    assert fetch(refer(site("/w.pt")), cache, patience=patience).read_bytes() == DATA
    assert waits == [7.5, 121.0], "no longer than two minutes, whatever it says"


def test_a_progress_that_raises_ends_it_at_once(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    """As Ctrl-C does: what has come is kept, and nobody writes any more."""

    def interrupt(done: int, total: int | None) -> None:
        if done >= 100 * KIB:
            raise KeyboardInterrupt

    _slow(site)
    reference = refer(site("/w.pt"))
    with pytest.raises(KeyboardInterrupt):
        fetch(reference, cache, patience=patience, progress=interrupt)
    assert Partial(cache.partial_of(reference.sha256)).present == 100 * KIB
    assert fetch(reference, cache, patience=patience).read_bytes() == DATA
    assert site.asked[1] == f"/w.pt bytes={100 * KIB}-"


# A digest that nobody knows yet.


def test_what_is_acquired_is_in_the_cache(site: Any, cache: Cache, refer: Refer) -> None:
    told: list[tuple[int, int | None]] = []
    found = acquire(site("/w.pt"), cache, progress=lambda *step: told.append(step))
    reference = refer("/nowhere")
    assert (found.sha256, found.size) == (reference.sha256, reference.size)
    assert found.path == cache.path_of(found.sha256)
    assert found.path.read_bytes() == DATA
    assert told[-1] == (len(DATA), len(DATA))
    assert fetch(reference, cache) == found.path
    assert list((cache.directory / "partial").iterdir()) == []


def test_a_local_file_is_acquired(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(DATA)
    found = acquire(str(tmp_path / "w"), cache, environ={"HATCH_MAR_OFFLINE": "1"})
    assert found.path.read_bytes() == DATA


def test_an_empty_file_is_acquired(site: Any, cache: Cache) -> None:
    found = acquire(site("/w.pt", b""), cache)
    assert (found.size, found.sha256) == (0, hashlib.sha256(b"").hexdigest())
    assert found.path.read_bytes() == b""


def test_an_interrupted_one_is_taken_up(site: Any, cache: Cache, haste: Patience) -> None:
    site.fail(truncate=100 * KIB, stall=True)
    found = acquire(site("/w.pt"), cache, patience=haste, lanes=Lanes(most=1))
    assert found.path.read_bytes() == DATA
    last = len(DATA) - 1
    parts = [f"/w.pt bytes={100 * KIB}-", f"/w.pt bytes={last}-{last}"]
    assert site.asked == ["/w.pt", *parts], "and in the end, whether it is still the same file"


@pytest.mark.parametrize("tags", [True, False])
def test_one_that_changes_is_begun_again(
    site: Any, cache: Cache, haste: Patience, tags: bool
) -> None:
    site.tags = tags
    other = bytes(reversed(DATA))
    site.fail(truncate=100 * KIB, becomes=other)
    found = acquire(site("/w.pt"), cache, patience=haste)
    assert found.path.read_bytes() == other
    assert found.sha256 == hashlib.sha256(other).hexdigest()


def test_one_that_changes_while_it_is_read_is_begun_again(
    site: Any, cache: Cache, patience: Patience
) -> None:
    """As a file does that is written to in place: the answer began as one and ends as another."""
    other = bytes(reversed(DATA))
    site.fail(becomes=other)
    found = acquire(site("/w.pt"), cache, patience=patience)
    assert found.path.read_bytes() == other


def test_one_of_before_a_reboot_is_begun_again(
    site: Any, cache: Cache, patience: Patience, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.fail(3, truncate=100 * KIB)
    site.fail(3, status=503)
    with pytest.raises(WeightsError, match=r"/w\.pt: cannot be fetched"):
        acquire(site("/w.pt"), cache, patience=patience, lanes=Lanes(most=1))
    site.asked.clear()
    site.faults.clear()
    (tmp_path / "boot").write_text("another")
    monkeypatch.setattr("hatch_mar.weights.partial._BOOT", tmp_path / "boot")
    assert acquire(site("/w.pt"), cache).path.read_bytes() == DATA
    assert site.asked[0].startswith("/w.pt bytes=")
    assert "/w.pt" in site.asked, "what was kept is not used"


def test_offline_nothing_is_acquired(site: Any, cache: Cache) -> None:
    url = site("/w.pt").replace("//", "//me:secret@")
    with pytest.raises(WeightsError, match="HATCH_MAR_OFFLINE forbids to fetch it") as caught:
        acquire(url, cache, environ={"HATCH_MAR_OFFLINE": "1"})
    assert "secret" not in str(caught.value)
    assert site.asked == []


def test_what_cannot_be_acquired(site: Any, cache: Cache) -> None:
    with pytest.raises(WeightsError, match=r"/gone: cannot be fetched: the server answers 404"):
        acquire(site.url + "/gone?token=secret", cache)


# Any sequence of interruptions.


class _InterruptedError(Exception):
    pass


class _Memory:
    """A source in memory that breaks off where it is told to, as a store may."""

    def __init__(self, data: bytes, breaks: list[int], version: str | None) -> None:
        self.data = data
        self.breaks = breaks
        self.version = version
        self.guard = threading.Lock()

    def open(self, start: int = 0, stop: int | None = None) -> _Reader:
        with self.guard:
            after = self.breaks.pop(0) if self.breaks else len(self.data)
        return _Reader(self, start, len(self.data) if stop is None else stop, after)

    def close(self) -> None:
        pass


class _Reader:
    def __init__(self, memory: _Memory, start: int, stop: int, after: int) -> None:
        self.start = start
        self.total: int | None = len(memory.data)
        self.version = memory.version
        self._data = memory.data
        self._at, self._stop, self._after = start, stop, after

    def read(self, count: int) -> bytes:
        count = min(count, self._stop - self._at, self._after)
        if count == 0 and self._at < self._stop:
            raise ConnectionError("broken")
        data = self._data[self._at : self._at + count]
        self._at += count
        self._after -= count
        return data

    def close(self) -> None:
        pass


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(0, 5000),
    breaks=st.lists(st.integers(0, 900), max_size=12),
    kills=st.lists(st.integers(0, 5000), max_size=6),
    version=st.sampled_from(['"1"', None]),
    most=st.integers(1, 4),
)
def test_any_interruptions_end_with_the_right_bytes(  # noqa: PLR0917 - drawn by hypothesis
    tmp_path_factory: pytest.TempPathFactory,
    size: int,
    breaks: list[int],
    kills: list[int],
    version: str | None,
    most: int,
) -> None:
    """Connections break anywhere; processes end anywhere, with notes or, as if killed, without."""
    data = hashlib.shake_256(b"weights").digest(size)
    path = tmp_path_factory.mktemp("fetch") / "w"
    source = _Memory(data, list(breaks), version)
    lanes = Lanes(most=most, part=256, smallest=1, idle=0.005)
    for number in range(len(breaks) + len(kills) + 2):
        limit = kills[number] if number < len(kills) else size + 1
        partial = Partial(path)

        def progress(done: int, total: int | None, limit: int = limit) -> None:
            if done > limit:
                raise _InterruptedError

        order = Order(uri="memory", size=size, is_pinned=True)
        download = Download(
            source, order, partial, lanes=lanes, progress=progress, admit=lambda _: None
        )
        try:
            download.run()
        except (ConnectionError, _InterruptedError):
            if number % 3 == 2:
                notes_of(path).unlink(missing_ok=True)
            partial.close()
            continue
        assert partial.hexdigest() == hashlib.sha256(data).hexdigest()
        partial.finish()
        assert path.read_bytes() == data
        return
    raise AssertionError("it never ended")


def test_the_origin_tells_versions_apart() -> None:
    assert Origin.of("a", "1", 5) == Origin.of("a", "1", 5)
    assert Origin.of("a", "1", 5) != Origin.of("a", "2", 5)
