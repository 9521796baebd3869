"""What the control groups that we are in leave us: containers are limited by them, not by /proc.

Both versions are read. The limits of every group above ours count too; a container sees its own
group as the root. What cannot be read does not limit.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
_NO_LIMIT = 1 << 60
"""Version 1 says no limit with a number of about this size."""
_MICROSECONDS, _NANOSECONDS = 1e6, 1e9


class Quota(NamedTuple):
    """The processor time of a group."""

    cores: float
    """How many it may use; infinity without a limit."""
    used: float
    """Core seconds that it has used."""


def read_memory_room(own: Path = OWN, root: Path = ROOT) -> tuple[float, float]:
    """Return the tightest limit on memory and what is left below it, in bytes.

    Files that are cached for the group and not in use are left, too: the kernel drops them.
    Infinities where there is no limit.
    """
    found = [(math.inf, math.inf)]
    for folder in _folders(own, root, "memory"):
        with suppress(OSError, ValueError, KeyError):
            new = (folder / "memory.max").exists()
            limit = _number(folder / ("memory.max" if new else "memory.limit_in_bytes"))
            used = _number(folder / ("memory.current" if new else "memory.usage_in_bytes"))
            if limit < _NO_LIMIT:
                idle = _table(folder / "memory.stat")[
                    "inactive_file" if new else "total_inactive_file"
                ]
                found.append((limit, max(limit - used + idle, 0.0)))
    return min(found, key=lambda pair: pair[1])


def read_quotas(own: Path = OWN, root: Path = ROOT) -> list[Quota]:
    """Return the limits on processor time, and what has been used under each; none if there are."""
    found = []
    for folder in _folders(own, root, "cpu"):
        with suppress(OSError, ValueError, KeyError, ZeroDivisionError):
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text(encoding="ascii").split()
                used = _table(folder / "cpu.stat")["usage_usec"] / _MICROSECONDS
                cores = math.inf if quota == "max" else int(quota) / int(period)
            else:
                limit = _number(folder / "cpu.cfs_quota_us")
                cores = limit / _number(folder / "cpu.cfs_period_us") if limit > 0 else math.inf
                account = root / "cpuacct" / folder.relative_to(root / "cpu")
                used = _number(account / "cpuacct.usage") / _NANOSECONDS
            if cores < math.inf:
                found.append(Quota(cores, used))
    return found


def _folders(own: Path, root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of our group and of those above it, the innermost one first."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / controller if controllers else root
        folder = top / path.strip("/")
        yield folder
        if folder != top:
            yield from (parent for parent in folder.parents if parent.is_relative_to(top))


def _number(file: Path) -> float:
    text = file.read_text(encoding="ascii").strip()
    return math.inf if text == "max" else int(text)


def _table(file: Path) -> dict[str, int]:
    lines = file.read_text(encoding="ascii").splitlines()
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
