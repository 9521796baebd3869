"""The cache as a whole: what is in it, what is damaged, what goes."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.errors import WeightsError
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import fetch
from hatch_mar.weights.reference import Reference
from hatch_mar.weights.upkeep import Item, choose, hold, list_items, prune, verify_item

if TYPE_CHECKING:
    from collections.abc import Callable

DAY = 86_400.0
NOW = 1_000 * DAY


def put(cache: Cache, tmp_path: Path, data: bytes, *, days: float = 0) -> Reference:
    """Fetch `data` into the cache, last used so many days before `NOW`."""
    source = tmp_path / "source"
    source.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    reference = Reference(target="w", source=str(source), sha256=sha256, size=len(data))
    fetch(reference, cache)
    cache.ledger.note_use(sha256, "m 1.0")
    used = NOW - days * DAY
    os.utime(cache.directory / "ledger" / f"{sha256}.json", (used, used))
    return reference


def leave_part(cache: Cache, key: str, *, days: float) -> Path:
    path = cache.directory / "partial" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(5000))
    path.with_name(f"{key}.spans").touch()
    os.utime(path, (NOW - days * DAY,) * 2)
    return path


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def test_nothing_is_there(cache: Cache) -> None:
    assert list_items(cache) == []
    assert list(prune(cache, now=NOW, max_size=0)) == []


def test_what_is_there(cache: Cache, tmp_path: Path) -> None:
    old = put(cache, tmp_path, b"old", days=3)
    new = put(cache, tmp_path, b"newer", days=1)
    part = leave_part(cache, "ab" * 32, days=2)
    (cache.directory / "sha256" / "ab").mkdir(exist_ok=True)
    (cache.directory / "sha256" / "ab" / "notes.txt").write_text("somebody's own")
    items = list_items(cache)
    assert [item.key for item in items] == [new.sha256, part.name, old.sha256]
    assert [item.whole for item in items] == [True, False, True]
    assert items[0].size == 5
    assert items[0].models == ("m 1.0",)
    assert items[0].used == NOW - DAY


def put_compiled(cache: Cache) -> Path:
    directory = cache.directory / "compiled"
    for name in ("aotinductor/ab12.pt2", "aotinductor/.ab12.pt2.lock", "inductor/torch-2/x/k.so"):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"code")
    return directory


def test_what_was_compiled_is_there_too(cache: Cache) -> None:
    put_compiled(cache)
    items = {item.key: item for item in list_items(cache)}
    assert {key: item.size for key, item in items.items()} == {
        "aotinductor/ab12.pt2": 4,
        "inductor/torch-2": 4,
    }
    assert all(item.compiled and not item.whole for item in items.values())


def test_what_was_compiled_goes_as_the_rest_does(cache: Cache) -> None:
    directory = put_compiled(cache)
    fates = [each.fate for each in prune(cache, now=0.0, max_size=0)]
    assert fates == ["removed", "removed"]
    assert not (directory / "aotinductor" / "ab12.pt2").exists()
    assert not (directory / "inductor" / "torch-2").exists()


def test_a_dry_run_keeps_what_was_compiled(cache: Cache) -> None:
    directory = put_compiled(cache)
    assert len(list(prune(cache, now=0.0, max_size=0, dry_run=True))) == 2
    assert (directory / "inductor" / "torch-2" / "x" / "k.so").exists()


@pytest.mark.parametrize("name", ["sha256", "partial"])
def test_a_cache_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a file")
    with pytest.raises(WeightsError, match="the cache cannot be read: Not a directory; set HATCH_"):
        list_items(Cache(tmp_path))


class TestVerify:
    def check(self, cache: Cache, *, fix: bool = False) -> tuple[str, bool]:
        (item,) = list_items(cache)
        checked = verify_item(cache, item, fix=fix)
        return checked.state, checked.removed

    def test_a_right_file(self, cache: Cache, tmp_path: Path) -> None:
        put(cache, tmp_path, b"weights")
        seen: list[int] = []
        (item,) = list_items(cache)
        checked = verify_item(cache, item, advance=seen.append)
        assert (checked.state, checked.found, seen) == ("right", item.key, [7])

    def test_it_is_no_use_of_the_file(self, cache: Cache, tmp_path: Path) -> None:
        put(cache, tmp_path, b"weights", days=9)
        self.check(cache)
        assert list_items(cache)[0].used == NOW - 9 * DAY

    def test_a_damaged_file_is_not_used_again(self, cache: Cache, tmp_path: Path) -> None:
        reference = put(cache, tmp_path, b"weights")
        path = cache.path_of(reference.sha256)
        status = path.stat()
        overwrite(path, b"w3ights")
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert cache.is_unchanged(reference), "the disk rots, and no time tells of it"
        assert self.check(cache) == ("damaged", False)
        assert fetch(reference, cache).read_bytes() == b"weights"

    def test_it_is_removed_if_asked(self, cache: Cache, tmp_path: Path) -> None:
        reference = put(cache, tmp_path, b"weights")
        overwrite(cache.path_of(reference.sha256), b"")
        assert self.check(cache, fix=True) == ("damaged", True)
        assert list_items(cache) == []
        assert not list((cache.directory / "ledger").iterdir())

    def test_a_file_that_came_by_itself_is_vouched_for(self, cache: Cache, tmp_path: Path) -> None:
        reference = put(cache, tmp_path, b"weights")
        cache.ledger.forget(reference.sha256)
        assert not cache.is_unchanged(reference)
        assert self.check(cache) == ("right", False)
        assert cache.is_unchanged(reference)

    def test_a_file_that_is_gone(self, cache: Cache, tmp_path: Path) -> None:
        reference = put(cache, tmp_path, b"weights")
        (item,) = list_items(cache)
        cache.path_of(reference.sha256).unlink()
        assert verify_item(cache, item).state == "unreadable"


class TestPrune:
    def removed(self, cache: Cache, **limits: float) -> list[str]:
        pruned = list(prune(cache, now=NOW, **limits))  # type: ignore[arg-type]
        return [each.item.key for each in pruned if each.fate == "removed"]

    def test_by_age(self, cache: Cache, tmp_path: Path) -> None:
        old = put(cache, tmp_path, b"old", days=31)
        new = put(cache, tmp_path, b"new", days=29)
        assert self.removed(cache, older_than=30 * DAY) == [old.sha256]
        assert not cache.has(old)
        assert cache.has(new)

    def test_by_size_the_least_recently_used_first(self, cache: Cache, tmp_path: Path) -> None:
        files = [put(cache, tmp_path, bytes([days]) * 100, days=days) for days in (2, 5, 1)]
        assert self.removed(cache, max_size=250) == [files[1].sha256]
        assert self.removed(cache, max_size=250) == []
        assert self.removed(cache, max_size=0) == [files[0].sha256, files[2].sha256]
        assert {path.parent.name for path in cache.directory.rglob("*") if path.is_file()} <= {
            "locks"
        }

    def test_what_is_left_of_downloads(self, cache: Cache) -> None:
        part = leave_part(cache, "ab" * 32, days=31)
        assert self.removed(cache, older_than=30 * DAY) == [part.name]
        assert list(part.parent.iterdir()) == []

    def test_a_dry_run_removes_nothing(self, cache: Cache, tmp_path: Path) -> None:
        reference = put(cache, tmp_path, b"old", days=31)
        leave_part(cache, "ab" * 32, days=31)
        pruned = list(prune(cache, now=NOW, max_size=0, dry_run=True))
        assert [each.fate for each in pruned] == ["removed"] * 2
        assert cache.has(reference)
        assert len(list_items(cache)) == 2

    def test_what_is_being_fetched_stays(self, cache: Cache) -> None:
        part = leave_part(cache, "ab" * 32, days=31)
        with cache.lock(part.name):
            (pruned,) = prune(cache, now=NOW, max_size=0)
        assert pruned.fate == "in use"
        assert part.exists()

    def test_what_is_served_stays_and_something_else_goes(
        self, cache: Cache, tmp_path: Path
    ) -> None:
        served = put(cache, tmp_path, b"a" * 100, days=9)
        other = put(cache, tmp_path, b"b" * 100, days=1)
        descriptor = hold(cache.path_of(served.sha256))
        assert descriptor is not None
        fates = {each.item.key: each.fate for each in prune(cache, now=NOW, max_size=100)}
        assert fates == {served.sha256: "in use", other.sha256: "removed"}
        os.close(descriptor)
        assert self.removed(cache, max_size=0) == [served.sha256]

    def test_what_a_dead_process_held_goes(self, cache: Cache, tmp_path: Path) -> None:
        reference = put(cache, tmp_path, b"weights")
        code = (
            "import os, sys; from pathlib import Path;"
            "from hatch_mar.weights.upkeep import hold;"
            "assert hold(Path(sys.argv[1])) is not None; os._exit(9)"
        )
        path = cache.path_of(reference.sha256)
        root = Path(__file__).parents[2]
        subprocess.run([sys.executable, "-c", code, str(path)], check=False, cwd=root)
        assert self.removed(cache, max_size=0) == [reference.sha256]

    def test_what_cannot_be_removed(self, cache: Cache) -> None:
        part = cache.directory / "partial" / ("ab" * 32)
        part.mkdir(parents=True)
        (pruned,) = prune(cache, now=NOW + DAY * 1e6, older_than=DAY)
        assert pruned.fate == "not ours"


def test_a_file_that_is_gone_cannot_be_held(cache: Cache) -> None:
    assert hold(cache.path_of("ab" * 32)) is None


def test_a_file_that_cannot_be_read_cannot_be_held(tmp_path: Path) -> None:
    (tmp_path / "w").symlink_to("w")
    with pytest.raises(
        WeightsError, match=r"w: cannot be read: Too many levels .*; make it readab"
    ):
        hold(tmp_path / "w")


def test_a_file_that_goes_while_it_is_waited_for_is_not_held(cache: Cache, tmp_path: Path) -> None:
    """`prune` has the lock for a moment, and the runner that waits for it must not get a ghost."""
    path = cache.path_of(put(cache, tmp_path, b"weights").sha256)
    code = (
        "import sys; from pathlib import Path; from hatch_mar.weights.upkeep import hold;"
        "print('waiting', flush=True); print(hold(Path(sys.argv[1])))"
    )
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        path.unlink()
    output, _ = process.communicate(timeout=60)
    assert output == "None\n"


items = st.builds(
    Item,
    key=st.text("0123456789abcdef", min_size=64, max_size=64),
    path=st.just(Path("x")),
    size=st.integers(0, 1000),
    whole=st.booleans(),
    since=st.just(0.0),
    used=st.floats(0, NOW),
)


@given(st.lists(items, unique_by=lambda item: item.key), st.integers(0, 5000))
def test_what_goes_makes_it_fit_and_no_more(there: list[Item], limit: int) -> None:
    gone = choose(there, now=NOW, max_size=limit)
    left = sum(item.size for item in there) - sum(item.size for item in gone)
    assert left <= limit
    if gone:
        assert left + gone[-1].size > limit
        assert max(item.used for item in gone) <= min(
            (item.used for item in there if item not in gone), default=NOW
        )


def test_both_limits_hold(cache: Cache, tmp_path: Path) -> None:
    for days in (1, 2, 40):
        put(cache, tmp_path, bytes([days]) * 100, days=days)
    gone = choose(list_items(cache), now=NOW, max_size=150, older_than=30 * DAY)
    assert [round((NOW - item.used) / DAY) for item in gone] == [40, 2]


class TestTheLedger:
    """A second start does not hash; whatever was touched is hashed once more."""

    @pytest.fixture
    def reference(self, cache: Cache, tmp_path: Path) -> Reference:
        return put(cache, tmp_path, b"weights")

    def test_a_published_file_is_vouched_for(self, cache: Cache, reference: Reference) -> None:
        assert cache.is_unchanged(reference)

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", '{"size": 7}', '{"size": "7", "mtime_ns": 1, "models": []}']
    )
    def test_an_entry_without_sense(self, cache: Cache, reference: Reference, text: str) -> None:
        (cache.directory / "ledger" / f"{reference.sha256}.json").write_text(text)
        assert not cache.is_unchanged(reference)
        assert cache.confirm(reference)
        assert cache.is_unchanged(reference)

    def test_a_copy_that_keeps_whole_seconds(self, cache: Cache, reference: Reference) -> None:
        path = cache.path_of(reference.sha256)
        second = path.stat().st_mtime_ns // 10**9 * 10**9
        os.utime(path, ns=(second, second))
        assert cache.is_unchanged(reference)

    def test_a_file_that_was_written_to(
        self, cache: Cache, reference: Reference, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = cache.path_of(reference.sha256)
        overwrite(path, b"w3ights")
        os.utime(path, (1, 1))
        assert not cache.confirm(reference)
        assert f"{path}: is damaged" in caplog.text
        assert fetch(reference, cache).read_bytes() == b"weights"
        assert path.stat().st_mode & 0o777 == 0o444

    def test_a_file_that_was_put_there(self, cache: Cache, reference: Reference) -> None:
        path = cache.path_of(reference.sha256)
        cache.ledger.forget(reference.sha256)
        path.chmod(0o644)
        assert cache.confirm(reference)
        assert path.stat().st_mode & 0o777 == 0o444
        assert cache.is_unchanged(reference)

    def test_users_are_written_down_once(self, cache: Cache, reference: Reference) -> None:
        for model in ("a 1", "b 1", "a 1", ""):
            cache.ledger.note_use(reference.sha256, model)
        entry = cache.ledger.read(reference.sha256)
        assert entry is not None
        assert entry.models == ("m 1.0", "a 1", "b 1")

    def test_not_every_user_for_ever(self, cache: Cache, reference: Reference) -> None:
        for version in range(30):
            cache.ledger.note_use(reference.sha256, f"a {version}")
        entry = cache.ledger.read(reference.sha256)
        assert entry is not None
        assert entry.models == tuple(f"a {version}" for version in range(10, 30))

    def test_a_ledger_that_cannot_be_written_is_no_error(
        self, cache: Cache, reference: Reference
    ) -> None:
        directory = cache.directory / "ledger"
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()
        directory.write_text("in the way")
        assert cache.confirm(reference)
        cache.ledger.note_use(reference.sha256, "a 1")
        cache.ledger.forget(reference.sha256)
        assert cache.ledger.last_use(reference.sha256) is None


def test_a_digest_that_is_none(cache: Cache, refer: Callable[..., Reference]) -> None:
    with pytest.raises(WeightsError, match="is no sha256"):
        cache.path_of("../../etc/passwd")
    assert not cache.confirm(refer("/nowhere"))
