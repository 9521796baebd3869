"""What a file of machine code was compiled for, read from its header: ELF, PE and Mach-O.

Names of systems and machines are those of wheel tags. A file for something that has no wheel tag
(a GPU's cubin, a microcontroller's firmware) is data to a wheel, and so is a damaged header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import IO

ELF_MACHINES = {
    (3, 1, "<"): "i686",
    (20, 2, "<"): "ppc64le",
    (21, 2, "<"): "ppc64le",
    (22, 2, ">"): "s390x",
    (40, 1, "<"): "armv7l",
    (62, 2, "<"): "x86_64",
    (183, 2, "<"): "aarch64",
    (243, 2, "<"): "riscv64",
    (258, 2, "<"): "loongarch64",
}
"""`e_machine`, class (1: 32 bit, 2: 64 bit) and byte order, and the machine of the tag."""
ELF_CODE = {1, 2, 3}
"""`e_type` of objects, programs and libraries; the rest are memory dumps and vendors' own."""
ELF_SYSTEMS = {0: "linux", 3: "linux"}
"""`EI_OSABI`: System V, which is what Linux writes, and GNU."""
PE_MACHINES = {0x14C: "win32", 0x8664: "win_amd64", 0xAA64: "win_arm64"}
MACH_MACHINES = {0x0100_0007: "x86_64", 0x0100_000C: "arm64"}
MACH_HEADER = 32
"""Bytes of a 64-bit header; there is no 32-bit macOS any more."""
MACH_MAGIC = b"\xcf\xfa\xed\xfe"
FAT_MAGICS = {b"\xca\xfe\xba\xbe": ">I4xI8x", b"\xca\xfe\xba\xbf": ">I4xQ16x"}
"""Magic of a universal binary, and an entry of its table: machine and offset of a slice."""
MOST_SLICES = 20
"""A Java class file starts with the same magic, and then with a number from 45 on."""
LC_VERSION_MIN_MACOSX, LC_BUILD_VERSION = 0x24, 0x32
MACOS = 1
FIRST_MACOS = {"x86_64": (10, 9), "arm64": (11, 0)}
"""The release that is meant where a file does not say one: the first that CPython supports."""
SINGLE_NUMBER_MACOS = 11
"""From this release on, tags name the first number alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What some machine code runs on."""

    system: str
    """`linux`, `macosx`, or a whole Windows tag such as `win_amd64`."""
    machines: frozenset[str] = frozenset({""})
    """Machines of the tag; more than one in a universal binary."""
    release: tuple[int, int] = (0, 0)
    """The oldest macOS that it runs on."""

    def __and__(self, other: Platform) -> Platform | None:
        """Return where both run; None if that is nowhere."""
        machines = self.machines & other.machines
        if self.system != other.system or not machines:
            return None
        return Platform(
            system=self.system, machines=machines, release=max(self.release, other.release)
        )

    @property
    def tag(self) -> str:
        """The platform tag of a wheel (PyPA specification "platform compatibility tags")."""
        if self.system.startswith("win"):
            return self.system
        machine = "universal2" if len(self.machines) > 1 else min(self.machines)
        if self.system != "macosx":
            return f"{self.system}_{machine}"
        major, minor = self.release
        return f"macosx_{major}_{0 if major >= SINGLE_NUMBER_MACOS else minor}_{machine}"


def read_platform(file: IO[bytes]) -> Platform | None:
    """Return what the machine code in `file` runs on; None if it is none that a wheel can name.

    Args:
        file: Open for reading at its start, and seekable.

    Raises:
        OSError: it cannot be read.
    """
    magic = file.read(4)
    try:
        if magic == b"\x7fELF":
            return _read_elf(file)
        if magic[:2] == b"MZ":
            return _read_pe(file)
        if magic == MACH_MAGIC:
            return _read_mach(file, 0)
        if magic in FAT_MAGICS:
            return _read_fat(file, FAT_MAGICS[magic])
    except struct.error:  # the file ends within its header
        return None
    return None


def _read_elf(file: IO[bytes]) -> Platform | None:
    bits, order, _version, system = struct.unpack("4B", file.read(4))
    file.seek(16)
    byte_order = "<" if order == 1 else ">"
    kind, number = struct.unpack(f"{byte_order}HH", file.read(4))
    machine = ELF_MACHINES.get((number, bits, byte_order))
    if machine is None or kind not in ELF_CODE or system not in ELF_SYSTEMS:
        return None
    return Platform(system=ELF_SYSTEMS[system], machines=frozenset({machine}))


def _read_pe(file: IO[bytes]) -> Platform | None:
    file.seek(0x3C)
    (offset,) = struct.unpack("<I", file.read(4))
    file.seek(offset)
    signature, machine = struct.unpack("<4sH", file.read(6))
    if signature != b"PE\0\0" or machine not in PE_MACHINES:
        return None
    return Platform(system=PE_MACHINES[machine])


def _read_mach(file: IO[bytes], start: int) -> Platform | None:
    file.seek(start)
    magic, number, commands, length = struct.unpack("<4sI8xII8x", file.read(MACH_HEADER))
    machine = MACH_MACHINES.get(number)
    if magic != MACH_MAGIC or machine is None:
        return None
    release = _macos_release(file.read(min(length, 1 << 16)), commands)
    if release is None:
        return None
    release = max(release, FIRST_MACOS[machine])
    return Platform(system="macosx", machines=frozenset({machine}), release=release)


def _macos_release(commands: bytes, count: int) -> tuple[int, int] | None:
    """Return the oldest macOS that load commands name, (0, 0) if none do, None if it is an iOS."""
    place = 0
    for _ in range(count):
        command, size = struct.unpack_from("<II", commands, place)
        if command == LC_VERSION_MIN_MACOSX:
            return _version(commands, place + 8)
        if command == LC_BUILD_VERSION:
            (platform,) = struct.unpack_from("<I", commands, place + 8)
            return _version(commands, place + 12) if platform == MACOS else None
        place += max(size, 8)
    return (0, 0)


def _version(commands: bytes, place: int) -> tuple[int, int]:
    (packed,) = struct.unpack_from("<I", commands, place)
    return packed >> 16, packed >> 8 & 0xFF


def _read_fat(file: IO[bytes], entry: str) -> Platform | None:
    (count,) = struct.unpack(">I", file.read(4))
    if not 0 < count <= MOST_SLICES:
        return None
    table = file.read(count * struct.calcsize(entry))
    slices = [_read_mach(file, offset) for _, offset in struct.iter_unpack(entry, table)]
    found = [each for each in slices if each is not None]
    if not found:
        return None
    return Platform(
        system="macosx",
        machines=frozenset(machine for each in found for machine in each.machines),
        release=min(each.release for each in found),
    )
