"""What of the machine is left for one worker more."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.serve.devices.discovery import Device, Usage
from hatch_mar.serve.process import read_core_seconds, read_own_memory
from hatch_mar.serve.scaling.cgroups import Quota, read_memory_room, read_quotas
from hatch_mar.serve.scaling.room import (
    Glance,
    Memory,
    find_crowding,
    find_full_device,
    find_want_of_memory,
    glance,
    read_available,
)

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return the file that says in which control groups we are."""
    file = tmp_path / "cgroup"
    file.write_text("5:cpu,cpuacct:/job\n4:memory:/pods/one\n0::/pods/one\n")
    return file


class TestGroups:
    def test_the_second_version(self, tmp_path: Path, own: Path) -> None:
        root = tmp_path / "fs"
        write(root)
        write(root / "pods", memory__max=900, memory__current=850, memory__stat="inactive_file 0")
        write(root / "pods/one", memory__max="max", memory__current=500, cpu__max="150000 100000")
        write(root / "pods/one", cpu__stat="usage_usec 2500000\nuser_usec 1")
        assert read_memory_room(own, root) == (900, 50)
        assert read_quotas(own, root) == [Quota(1.5, 2.5)]

    def test_the_first_version(self, tmp_path: Path, own: Path) -> None:
        root = tmp_path / "fs"
        write(
            root / "memory/pods/one",
            memory__limit_in_bytes=1000,
            memory__usage_in_bytes=700,
            memory__stat="cache 5\ntotal_inactive_file 300",
        )
        write(root / "memory", memory__limit_in_bytes=9223372036854771712)
        write(root / "cpu/job", cpu__cfs_quota_us=200_000, cpu__cfs_period_us=100_000)
        write(root / "cpuacct/job", cpuacct__usage=3_000_000_000)
        assert read_memory_room(own, root) == (1000, 600)
        assert read_quotas(own, root) == [Quota(2, 3)]

    def test_a_container_sees_its_own_group_as_the_root(self, tmp_path: Path, own: Path) -> None:
        root = tmp_path / "fs"
        stat = "total_inactive_file 0"
        write(root / "memory", memory__limit_in_bytes=1000, memory__usage_in_bytes=900)
        write(root / "memory", memory__stat=stat)
        assert read_memory_room(own, root) == (1000, 100)

    def test_what_cannot_be_read_does_not_limit(self, tmp_path: Path) -> None:
        assert read_memory_room(tmp_path / "none", tmp_path) == (math.inf, math.inf)
        assert read_quotas(tmp_path / "none", tmp_path) == []


class TestMemory:
    machine = Memory(10_000 * MIB, 3_000 * MIB)

    def test_what_fits(self) -> None:
        assert not find_want_of_memory(2499 * MIB, self.machine)

    def test_what_does_not(self) -> None:
        assert find_want_of_memory(2501 * MIB, self.machine) == (
            "it would take 2501 MB, and 3000 MB are available, of which 500 MB stay free"
        )

    def test_there_is_some(self) -> None:
        memory = read_available()
        assert memory is None or 0 < memory.available <= memory.total


def looked(at: float, *, idle: float, used: dict[int, float], **fields: Any) -> Glance:
    return Glance(at, idle, fields.get("quotas", ()), used)


class TestProcessors:
    def test_workers_that_compute_need_an_idle_one(self) -> None:
        before = looked(0, idle=0, used={1: 0, 2: 0})
        assert find_crowding(before, looked(10, idle=1, used={1: 9, 2: 9})) == (
            "a worker computes on 0.9 cores, and 0.1 are idle: one more would bring nothing"
        )
        assert not find_crowding(before, looked(10, idle=5, used={1: 9, 2: 9}))

    def test_workers_that_wait_need_none(self) -> None:
        before = looked(0, idle=0, used={1: 0})
        assert not find_crowding(before, looked(10, idle=0, used={1: 0.2}))

    def test_a_quota_is_all_that_a_container_has(self) -> None:
        before = looked(0, idle=0, used={1: 0}, quotas=((1.0, 50.0),))
        after = looked(10, idle=30, used={1: 9}, quotas=((1.0, 59.0),))
        assert "0.1 are idle" in find_crowding(before, after)

    def test_somebody_new_says_nothing(self) -> None:
        assert not find_crowding(looked(0, idle=0, used={}), looked(10, idle=0, used={1: 9}))

    def test_a_glance(self) -> None:
        before = glance({7: 1.0})
        assert before.used == {7: 1.0}
        assert glance({}).at >= before.at > 0


def test_what_a_process_takes_of_its_own(tmp_path: Path) -> None:
    """Mapped files are not counted, memory that was written is."""
    big = tmp_path / "big"
    big.write_bytes(bytes(64 * MIB))
    source = """if True:
        import mmap, sys
        file = open(sys.argv[1], "rb")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        seen = sum(mapped[::4096])
        own = bytearray(b"x") * (32 << 20)
        print("ready", flush=True)
        sys.stdin.read()
    """
    with subprocess.Popen(
        [sys.executable, "-c", source, str(big)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 32 * MIB < read_own_memory(process.pid) < 60 * MIB
        assert read_core_seconds(process.pid) > 0
        process.communicate()
    assert read_own_memory(process.pid) == 0


class TestDevice:
    gpu = Device(index=0, uuid="GPU-0", memory=1000)

    @pytest.mark.parametrize(
        ("used", "complaint"),
        [(600, ""), (800, "it would take 400 MB of gpu:0, and 200 MB are free")],
    )
    def test_its_free_memory_decides(self, used: float, complaint: str) -> None:
        usage = Usage(memory=used, memory_share=0, busy=0)
        assert find_full_device(self.gpu, [self.gpu, self.gpu], lambda _: usage) == complaint

    def test_an_empty_one_is_compared_with_the_others(self) -> None:
        other = Device(index=1, uuid="GPU-1", memory=4000)
        used = {self.gpu: 100.0, other: 2000.0}
        complaint = find_full_device(
            self.gpu, [other, other], lambda one: Usage(used[one], memory_share=0, busy=0)
        )
        assert complaint == "it would take 1000 MB of gpu:0, and 900 MB are free"

    def test_one_that_cannot_be_asked_has_room(self) -> None:
        assert not find_full_device(self.gpu, [self.gpu], lambda _: None)
