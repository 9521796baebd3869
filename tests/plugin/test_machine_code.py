"""What a file of machine code runs on, by its header."""

from __future__ import annotations

import io
import struct
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.tags import parse_tag

from hatch_mar.plugin.machine_code import read_platform

ARM64, X86_64 = 0x0100_000C, 0x0100_0007
MACOS, IOS = 1, 2


def tag_of(data: bytes) -> str | None:
    """Return the platform tag of a file that starts with `data`."""
    platform = read_platform(io.BytesIO(data))
    if platform is None:
        return None
    assert len(parse_tag(f"py3-none-{platform.tag}")) == 1
    return platform.tag


def elf(machine: int, *, bits: int = 2, order: str = "<", kind: int = 3, system: int = 0) -> bytes:
    ident = struct.pack("4s4B8x", b"\x7fELF", bits, 1 if order == "<" else 2, 1, system)
    return ident + struct.pack(f"{order}HHI", kind, machine, 1) + bytes(40)


def pe(machine: int) -> bytes:
    return (
        b"MZ".ljust(0x3C, b"\0")
        + struct.pack("<I", 0x80)
        + bytes(0x40)
        + struct.pack("<4sH", b"PE\0\0", machine)
    )


def build_version(release: tuple[int, int], platform: int = MACOS) -> bytes:
    """Return LC_BUILD_VERSION."""
    packed = release[0] << 16 | release[1] << 8
    return struct.pack("<6I", 0x32, 24, platform, packed, packed, 0)


def old_version(release: tuple[int, int]) -> bytes:
    """Return LC_VERSION_MIN_MACOSX, behind a command that says nothing of this."""
    packed = release[0] << 16 | release[1] << 8
    return struct.pack("<3I", 0x1D, 16, 0) + bytes(4) + struct.pack("<4I", 0x24, 16, packed, packed)


def mach(machine: int, commands: bytes = b"", count: int = 0) -> bytes:
    header = struct.pack(
        "<4sIIIIIII", b"\xcf\xfa\xed\xfe", machine, 0, 6, count, len(commands), 0, 0
    )
    return header + commands


def fat(*slices: tuple[int, bytes], wide: bool = False) -> bytes:
    magic, form = (b"\xca\xfe\xba\xbf", ">IIQQII") if wide else (b"\xca\xfe\xba\xbe", ">IIIII")
    table, bodies, place = b"", b"", 4096
    for machine, body in slices:
        entry = (machine, 0, place, len(body), 12)
        table += struct.pack(form, *entry, *([0] if wide else []))
        bodies += body
        place += len(body)
    return (magic + struct.pack(">I", len(slices)) + table).ljust(4096, b"\0") + bodies


@pytest.mark.parametrize(
    ("data", "tag"),
    [
        (elf(62), "linux_x86_64"),
        (elf(62, system=3), "linux_x86_64"),
        (elf(62, kind=1), "linux_x86_64"),
        (elf(183), "linux_aarch64"),
        (elf(3, bits=1), "linux_i686"),
        (elf(40, bits=1), "linux_armv7l"),
        (elf(21), "linux_ppc64le"),
        (elf(22, order=">"), "linux_s390x"),
        (elf(243), "linux_riscv64"),
        (pe(0x8664), "win_amd64"),
        (pe(0xAA64), "win_arm64"),
        (pe(0x14C), "win32"),
        (mach(ARM64, build_version((14, 2)), 1), "macosx_14_0_arm64"),
        (mach(X86_64, old_version((10, 13)), 2), "macosx_10_13_x86_64"),
        (mach(ARM64), "macosx_11_0_arm64"),
        (mach(X86_64), "macosx_10_9_x86_64"),
    ],
)
def test_the_header_tells(data: bytes, tag: str) -> None:
    assert tag_of(data) == tag


@pytest.mark.parametrize("wide", [False, True])
def test_a_universal_binary_is_for_both(wide: bool) -> None:
    intel, arm = mach(X86_64, old_version((10, 15)), 2), mach(ARM64)
    assert tag_of(fat((X86_64, intel), (ARM64, arm), wide=wide)) == "macosx_10_15_universal2"
    assert tag_of(fat((ARM64, arm), wide=wide)) == "macosx_11_0_arm64"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(elf(190), id="a cubin"),
        pytest.param(elf(94), id="firmware"),
        pytest.param(elf(62, kind=4), id="a core dump"),
        pytest.param(elf(62, system=9), id="FreeBSD"),
        pytest.param(elf(62, bits=1), id="x32"),
        pytest.param(pe(0x1C0), id="Windows CE"),
        pytest.param(
            b"MZ and then some prose, longer than a header of DOS ever was: " * 3, id="MZ"
        ),
        pytest.param(mach(12), id="a 32-bit ARM"),
        pytest.param(mach(ARM64, build_version((17, 0), IOS), 1), id="iOS"),
        pytest.param(b"\xca\xfe\xba\xbe\0\0\0\x41" + bytes(100), id="a Java class"),
        pytest.param(fat((12, mach(12))), id="universal for nobody we know"),
        pytest.param(b"#!/bin/sh\n", id="a script"),
        pytest.param(b"", id="empty"),
    ],
)
def test_other_files_are_data(data: bytes) -> None:
    assert tag_of(data) is None


@given(
    st.sampled_from([elf(62), pe(0x8664), mach(ARM64, build_version((14, 0)), 1), fat((1, b""))]),
    st.integers(0, 200),
    st.binary(max_size=64),
)
def test_no_damage_is_an_error(whole: bytes, end: int, junk: bytes) -> None:
    tag_of(whole[:end])
    tag_of(whole[:end] + junk)


@pytest.mark.skipif(sys.platform != "linux", reason="says what a Linux machine has")
def test_this_python_is_for_this_machine() -> None:
    with Path(sys.executable).open("rb") as file:
        platform = read_platform(file)
    assert platform is not None
    assert platform.system == "linux"


@pytest.mark.parametrize(
    ("name", "tag"), [("t32", "win32"), ("t64", "win_amd64"), ("t64-arm", "win_arm64")]
)
def test_real_programs_of_windows(name: str, tag: str) -> None:
    program = distribution("distlib").locate_file(f"distlib/{name}.exe")
    with Path(str(program)).open("rb") as file:
        platform = read_platform(file)
    assert platform is not None
    assert platform.tag == tag
