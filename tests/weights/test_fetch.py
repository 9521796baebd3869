from __future__ import annotations

import gzip
import hashlib
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.errors import DigestMismatchError, OfflineError, WeightsError
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import Patience, fetch, is_offline
from hatch_mar.weights.partial import Origin, notes_of
from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Callable

    Refer = Callable[..., Reference]

ROOT = Path(__file__).parents[2]
DATA = bytes(range(256)) * 12_000
MIB = 1 << 20


def _files(cache: Cache) -> set[str]:
    """Every file of the cache but locks, and what it remembers of the others."""
    return {
        path.relative_to(cache.directory).as_posix()
        for path in cache.directory.rglob("*")
        if path.is_file() and path.parent.name not in {"locks", "ledger"}
    }


def _published(reference: Reference) -> set[str]:
    return {f"sha256/{reference.sha256[:2]}/{reference.sha256}"}


def test_what_is_fetched_is_in_the_cache(site: Any, cache: Cache, refer: Refer) -> None:
    reference = refer(site("/w.pt"))
    path = fetch(reference, cache)
    assert path == cache.path_of(reference.sha256)
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o444
    assert _files(cache) == _published(reference)
    assert cache.has(reference)


def test_the_second_time_nothing_is_asked(site: Any, cache: Cache, refer: Refer) -> None:
    reference = refer(site("/w.pt"))
    fetch(reference, cache)
    fetch(reference, cache)
    assert site.asked == ["/w.pt"]


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_a_local_file(tmp_path: Path, cache: Cache, refer: Refer, form: str) -> None:
    (tmp_path / "w 1.pt").write_bytes(DATA)
    path = str(tmp_path / "w 1.pt")
    source = form.format(path if form == "{}" else path.replace(" ", "%20"))
    assert fetch(refer(source), cache).read_bytes() == DATA


def test_an_empty_file(tmp_path: Path, cache: Cache, refer: Refer) -> None:
    (tmp_path / "empty").touch()
    assert fetch(refer(str(tmp_path / "empty"), data=b""), cache).read_bytes() == b""


def test_progress_is_told(site: Any, cache: Cache, refer: Refer) -> None:
    told: list[tuple[int, int | None]] = []
    fetch(refer(site("/w.pt")), cache, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def _leave(cache: Cache, reference: Reference, data: bytes) -> None:
    """Leave `data` as an interrupted fetch of nobody knows what does."""
    with cache.lock(reference.sha256):
        partial = cache.open_partial(reference.sha256)
        partial.belong_to(Origin.of("https://elsewhere", None, reference.size))
        partial.write(0, data)
        partial.save()
        partial.close()


# Interruptions.


def test_a_truncated_answer_is_not_the_end(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    site.fail(2, truncate=MIB)
    assert fetch(refer(site("/w.pt")), cache, patience=patience).read_bytes() == DATA
    assert len(site.asked) == 3


def test_a_server_without_ranges(site: Any, cache: Cache, refer: Refer, patience: Patience) -> None:
    site.ranges = False
    site.fail(truncate=MIB)
    assert fetch(refer(site("/w.pt")), cache, patience=patience).read_bytes() == DATA
    assert len(site.asked) == 2


def test_a_server_that_answers_503_twice(
    site: Any, cache: Cache, refer: Refer, patience: Patience, waits: list[float]
) -> None:
    site.fail(2, status=503)
    assert fetch(refer(site("/w.pt")), cache, patience=patience).read_bytes() == DATA
    assert waits == [0.5, 1.0]


def test_patience_ends(
    site: Any, cache: Cache, refer: Refer, patience: Patience, waits: list[float]
) -> None:
    site.fail(9, status=503)
    message = (
        r"^model\.pt: cannot be fetched: http.*/w\.pt: the server answers 503; "
        r"put that right, or put the file at .*/sha256/[^ ]*$"
    )
    with pytest.raises(WeightsError, match=message):
        fetch(refer(site("/w.pt")), cache, patience=patience)
    assert len(site.asked) == 3
    assert waits == [0.5, 1.0]
    assert _files(cache) == set()


def test_waits_grow_to_a_limit(waits: list[float]) -> None:
    patience = Patience(sleep=waits.append, jitter=lambda: 0.5)
    for failures in range(1, 10):
        patience.wait(failures)
    assert waits == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]


def test_a_stalled_answer_is_taken_up_where_it_stopped(
    site: Any, cache: Cache, refer: Refer, haste: Patience, waits: list[float]
) -> None:
    site.fail(2, truncate=MIB, stall=True)
    assert fetch(refer(site("/w.pt")), cache, patience=haste).read_bytes() == DATA
    assert site.asked == ["/w.pt", f"/w.pt bytes={MIB}-", f"/w.pt bytes={2 * MIB}-"]
    assert waits == [0.5, 0.5], "each attempt brought something new"


def test_a_server_that_is_not_there(cache: Cache, refer: Refer, patience: Patience) -> None:
    with pytest.raises(WeightsError, match=r"http://127\.0\.0\.1:1/w\.pt: cannot connect: Conn"):
        fetch(refer("http://127.0.0.1:1/w.pt"), cache, patience=patience)


def test_a_file_that_changes_midway(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    """What was kept is of the old file, and the lock is of the new one."""
    reference = refer(site("/w.pt"))
    _leave(cache, reference, b"of another file" * 1000)
    assert fetch(reference, cache, patience=patience).read_bytes() == DATA
    assert site.asked == ["/w.pt bytes=15000-", "/w.pt"]


def test_a_partial_file_that_is_too_long(site: Any, cache: Cache, refer: Refer) -> None:
    reference = refer(site("/w.pt"))
    _leave(cache, reference, DATA + b"x")
    assert fetch(reference, cache).read_bytes() == DATA
    assert site.asked == ["/w.pt"]


def test_a_partial_file_that_is_whole(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    """Killed between the last byte and the rename."""
    reference = refer(site("/w.pt"))
    _leave(cache, reference, DATA)
    assert fetch(reference, cache, patience=patience).read_bytes() == DATA
    assert site.asked == []
    assert _files(cache) == _published(reference)


def test_a_partial_file_longer_than_the_source(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    reference = refer(site("/w.pt"), sized=False)
    _leave(cache, reference, DATA + b"more")
    assert fetch(reference, cache, patience=patience).read_bytes() == DATA


FETCHER = """
import sys
from pathlib import Path
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import fetch
from hatch_mar.weights.reference import Reference
source, sha256, size, cache = sys.argv[1:]
reference = Reference(target="model.pt", source=source, sha256=sha256, size=int(size))
print(fetch(reference, Cache(Path(cache))))
"""


def _start(reference: Reference, cache: Cache) -> subprocess.Popen[str]:
    arguments = [reference.source, reference.sha256, str(reference.size), str(cache.directory)]
    command = [sys.executable, "-c", FETCHER, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def test_a_killed_fetch_is_taken_up(site: Any, cache: Cache, refer: Refer) -> None:
    site.fail(truncate=2 * MIB, stall=True)
    reference = refer(site("/w.pt"))
    process = _start(reference, cache)
    assert site.sent.wait(60)
    notes = notes_of(cache.partial_of(reference.sha256))
    while not notes.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not cache.has(reference)
    assert fetch(reference, cache).read_bytes() == DATA
    assert site.asked[1].startswith("/w.pt bytes=")
    assert _files(cache) == _published(reference)


def test_many_processes_fetch_once(site: Any, cache: Cache, refer: Refer) -> None:
    site.fail(stall=True)
    reference = refer(site("/w.pt"))
    processes = [_start(reference, cache) for _ in range(10)]
    assert site.sent.wait(60)
    site.over.set()
    path = str(cache.path_of(reference.sha256))
    for process in processes:
        assert process.communicate()[0].strip() == path
        assert process.returncode == 0
    assert site.asked == ["/w.pt"]


# Other bytes.


@pytest.mark.parametrize("sized", [True, False])
def test_other_bytes_are_never_published(
    site: Any, cache: Cache, refer: Refer, patience: Patience, sized: bool
) -> None:
    other = DATA[:-1] + b"x"
    message = r"^model\.pt: not what was locked: http.*/w\.pt: sha256 [0-9a-f]{64}, not"
    with pytest.raises(DigestMismatchError, match=message):
        fetch(refer(site("/w.pt", other), sized=sized), cache, patience=patience)
    assert _files(cache) == set()
    assert site.asked == ["/w.pt"], "the right answer would not be another one"


def test_another_size_is_not_even_downloaded(site: Any, cache: Cache, refer: Refer) -> None:
    with pytest.raises(DigestMismatchError, match=rf"{len(DATA) + 1} bytes, not {len(DATA)}"):
        fetch(refer(site("/w.pt", DATA + b"x")), cache)
    assert _files(cache) == set()


def test_a_server_that_sends_more_than_it_should(
    cache: Cache, refer: Refer, tmp_path: Path
) -> None:
    """The kernel's files say that they are empty."""
    with pytest.raises(DigestMismatchError, match="more than 0 bytes"):
        fetch(refer("/proc/self/status", data=b""), cache)
    assert _files(cache) == set()


def test_a_compressed_answer_is_the_file_it_is_of(site: Any, cache: Cache, refer: Refer) -> None:
    site.fail(headers={"Content-Encoding": "gzip"})
    reference = refer(site("/w.pt", gzip.compress(DATA)))
    assert fetch(reference, cache).read_bytes() == DATA


def test_a_redirect_is_followed(site: Any, cache: Cache, refer: Refer) -> None:
    site.redirects["/moved"] = site("/w.pt")
    assert fetch(refer(site.url + "/moved"), cache).read_bytes() == DATA


@pytest.mark.parametrize(
    ("target", "text"),
    [("/moved", "redirects without end"), ("file:///etc/hosts?key=secret", "to what is no http")],
)
def test_a_redirect_that_leads_nowhere(
    site: Any, cache: Cache, refer: Refer, target: str, text: str
) -> None:
    site.redirects["/moved"] = target
    with pytest.raises(WeightsError, match=text) as caught:
        fetch(refer(site.url + "/moved"), cache)
    assert "secret" not in str(caught.value)


# Sources and mirrors.


def test_mirrors_are_tried_in_order(
    site: Any, cache: Cache, refer: Refer, patience: Patience, tmp_path: Path
) -> None:
    (tmp_path / "w.pt").write_bytes(DATA)
    reference = refer(
        site.url + "/gone",
        site("/other", DATA[::-1]),
        "nfs://disk/w.pt",
        str(tmp_path / "w.pt"),
        site("/never"),
    )
    assert fetch(reference, cache, patience=patience).read_bytes() == DATA
    assert site.asked == ["/gone", "/other"]


def test_what_one_source_began_another_ends(
    site: Any, cache: Cache, refer: Refer, haste: Patience
) -> None:
    site.fail(truncate=MIB, stall=True)
    site.fail(3, status=503)
    assert fetch(refer(site("/a"), site("/b")), cache, patience=haste).read_bytes() == DATA
    assert site.asked[-1] == f"/b bytes={MIB}-"


def test_every_place_is_named_when_all_fail(
    site: Any, cache: Cache, refer: Refer, patience: Patience, tmp_path: Path
) -> None:
    url = f"http://user:secret@{site.url.removeprefix('http://')}/gone?token=secret"
    reference = refer(url, str(tmp_path / "gone.pt"), "nfs://disk/w.pt", "w.pt", "https://[x/w")
    with pytest.raises(WeightsError) as caught:
        fetch(reference, cache, patience=patience)
    message = str(caught.value)
    assert "secret" not in message
    assert f"{site.url}/gone: the server answers 404" in message
    assert f"{tmp_path}/gone.pt: No such file or directory" in message
    assert "nfs://disk/w.pt: no store reads 'nfs' sources; known are az, file, " in message
    assert "w.pt: is not an absolute path on this machine" in message
    assert "a source that is not a URL: is not a URL: invalid IPv6 URL" in message


@pytest.mark.parametrize(("status", "text"), [(403, "credentials"), (400, "answers 400")])
def test_what_will_not_pass_is_not_tried_again(
    site: Any, cache: Cache, refer: Refer, status: int, text: str
) -> None:
    site.fail(status=status)
    with pytest.raises(WeightsError, match=text):
        fetch(refer(site("/w.pt")), cache)
    assert site.asked == ["/w.pt"]


# Offline.


def test_offline_opens_no_socket(site: Any, cache: Cache, refer: Refer, tmp_path: Path) -> None:
    environ = {"HATCH_MAR_OFFLINE": "1"}
    (tmp_path / "w.pt").write_bytes(DATA)
    reference = refer(site("/w.pt"))
    message = r"^model\.pt: not in the cache, and HATCH_MAR_OFFLINE forbids .*; put the file at"
    with pytest.raises(OfflineError, match=message):
        fetch(reference, cache, environ=environ)
    mirrored = refer(site("/w.pt"), str(tmp_path / "w.pt"))
    assert fetch(mirrored, cache, environ=environ).read_bytes() == DATA
    assert fetch(reference, cache, environ=environ).read_bytes() == DATA
    assert site.asked == []


@pytest.mark.parametrize(
    ("value", "offline"),
    [("1", True), ("true", True), ("", False), ("0", False), (" No ", False), ("false", False)],
)
def test_what_counts_as_offline(value: str, offline: bool) -> None:
    assert is_offline({"HATCH_MAR_OFFLINE": value}) is offline


# The disk.


def test_a_full_disk_leaves_nothing(site: Any, cache: Cache, refer: Refer) -> None:
    reference = refer(site("/w.pt"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(WeightsError, match=r"cannot be written: File too large; make room"):
            fetch(reference, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not cache.has(reference)
    assert fetch(reference, cache).read_bytes() == DATA


def _in_namespace(script: str, directory: Path, code: str, *arguments: str) -> str:
    """Run Python `code` after the shell's `script` in a mount namespace of its own."""
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*namespace, "sh", "-ec"]
    command += [f'{script}\nexec "$@"', str(directory), sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


FULL_DISK = """
import sys
from pathlib import Path
from hatch_mar.errors import WeightsError
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import fetch
from hatch_mar.weights.reference import Reference
source, sha256, size, cache = sys.argv[1:]
directory = Path(cache)
(directory / "ballast").write_bytes(bytes(1 << 20))
reference = Reference(target="model.pt", source=source, sha256=sha256, size=int(size) or None)
try:
    fetch(reference, Cache(directory))
except WeightsError as error:
    print(error)
left = [path for path in directory.rglob("*") if path.is_file() and path.stat().st_size]
print(*(path.name for path in left))
"""


@pytest.mark.namespaces
@pytest.mark.parametrize("sized", [True, False])
def test_a_disk_that_is_really_full(
    site: Any, refer: Refer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sized: bool
) -> None:
    """Two megabytes, of which one is used: known before, or found out on the way."""
    if not sized:
        site.fail(unknown=True)
    reference = refer(site("/w.pt"))
    mount = 'mount -t tmpfs -o size=2m tmpfs "$0"'
    arguments = [reference.source, reference.sha256, str(len(DATA) if sized else 0), str(tmp_path)]
    said, left = _in_namespace(mount, tmp_path, FULL_DISK, *arguments).splitlines()
    if sized:
        assert f"no room for model.pt, {len(DATA)} bytes; make some, or set HATCH_MAR_CACHE" in said
    else:
        assert "cannot be written: No space left on device; make room, or set HATCH_MAR_CAC" in said
    assert left == "ballast"


READ_ONLY = """
import sys
from pathlib import Path
from hatch_mar.errors import WeightsError
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import fetch
from hatch_mar.weights.reference import Reference
source, sha256, size, cache = sys.argv[1:]
reference = Reference(target="model.pt", source=source, sha256=sha256, size=int(size))
try:
    print(fetch(reference, Cache(Path(cache))))
except WeightsError as error:
    print(error)
"""


@pytest.mark.namespaces
def test_a_cache_that_is_read_only(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    reference = refer(site("/w.pt"))
    path = fetch(reference, cache, patience=patience)
    mount = 'mount --bind "$0" "$0"\nmount -o remount,bind,ro "$0"'
    arguments = [reference.source, reference.sha256, str(reference.size), str(cache.directory)]
    said = _in_namespace(mount, cache.directory, READ_ONLY, *arguments)
    assert said.strip() == str(path)
    other = refer(site("/other.pt", DATA[::-1]), data=DATA[::-1])
    arguments = [other.source, other.sha256, str(other.size), str(cache.directory)]
    said = _in_namespace(mount, cache.directory, READ_ONLY, *arguments)
    assert "the cache cannot be written: Read-only file system; set HATCH_MAR_CACHE_DIR" in said
    assert site.asked == ["/w.pt"]


def test_a_file_that_cannot_fit_is_not_begun(
    site: Any, cache: Cache, refer: Refer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 8, 1))
    with pytest.raises(WeightsError, match=r"no room for model\.pt, 3072000 bytes; make some, or"):
        fetch(refer(site("/w.pt")), cache)
    assert _files(cache) == set()


def test_a_cache_that_has_the_file_is_not_written(cache: Cache, refer: Refer) -> None:
    """It may be of another user, or of a read-only image."""
    reference = refer("/nowhere")
    path = cache.path_of(reference.sha256)
    path.parent.mkdir(parents=True)
    path.write_bytes(DATA)
    assert fetch(reference, cache) == path
    assert {entry.name for entry in cache.directory.iterdir()} == {"sha256", "ledger"}
    remembered = {entry: entry.stat().st_mtime_ns for entry in cache.directory.rglob("*")}
    assert fetch(reference, cache) == path
    assert {e: e.stat().st_mtime_ns for e in cache.directory.rglob("*")} == remembered


def test_a_cache_that_cannot_be_made(site: Any, refer: Refer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file" / "cache")
    with pytest.raises(WeightsError, match="cannot be written: Not a directory; set HATCH_MAR_CA"):
        fetch(refer(site("/w.pt")), cache)


def test_a_cached_file_of_another_size_is_replaced(site: Any, cache: Cache, refer: Refer) -> None:
    reference = refer(site("/w.pt"))
    path = fetch(reference, cache)
    path.chmod(0o644)
    path.write_bytes(b"cut")
    assert not cache.has(reference)
    assert fetch(reference, cache).read_bytes() == DATA


def test_a_digest_that_is_none_is_refused(cache: Cache) -> None:
    reference = Reference(target="w", source="/w", sha256="../../etc/passwd")
    with pytest.raises(WeightsError, match="is no sha256: 64 lower-case hex digits"):
        fetch(reference, cache)


def test_the_whole_is_hashed_not_the_last_part(
    site: Any, cache: Cache, refer: Refer, patience: Patience
) -> None:
    site.fail(truncate=MIB)
    path = fetch(refer(site("/w.pt")), cache, patience=patience)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name


@pytest.mark.parametrize("suffix", ["", ".spans.new"])
def test_what_others_link_into_the_cache_is_not_written_to(
    site: Any, cache: Cache, refer: Refer, tmp_path: Path, suffix: str
) -> None:
    reference = refer(site("/w.pt"))
    _leave(cache, reference, DATA[:MIB])
    (tmp_path / "precious").write_bytes(DATA)
    part = cache.partial_of(reference.sha256)
    link = part.with_name(part.name + suffix)
    link.unlink(missing_ok=True)
    link.symlink_to(tmp_path / "precious")
    path = fetch(reference, cache)
    assert path.read_bytes() == DATA
    assert not path.is_symlink()
    assert (tmp_path / "precious").stat().st_mode & 0o200
    assert (tmp_path / "precious").read_bytes() == DATA


@pytest.mark.parametrize("notes", ["[" * 100_000, '{"origin": 1, "spans": 2}', "\0"])
def test_notes_that_make_no_sense_are_none(
    site: Any, cache: Cache, refer: Refer, notes: str
) -> None:
    reference = refer(site("/w.pt"))
    _leave(cache, reference, DATA[:MIB])
    notes_of(cache.partial_of(reference.sha256)).write_text(notes, encoding="utf-8")
    path = fetch(reference, cache)
    cache.ledger.directory.joinpath(f"{path.name}.json").write_text(notes, encoding="utf-8")
    assert cache.ledger.read(path.name) is None
    assert fetch(reference, cache).read_bytes() == DATA
    assert site.asked == ["/w.pt"]
