"""Files as a tree, with their sizes in a column."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hatch_mar.cli.output import columns, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(slots=True)
class _Branch:
    """A directory, or a file with what is said of it."""

    size: str = ""
    remark: str = ""
    inner: dict[str, _Branch] = field(default_factory=dict)


def tree(rows: Iterable[tuple[str, str, str]], *, indent: str = "  ") -> Iterator[str]:
    """Yield lines for `rows`: POSIX path, size and remark of each file, either may be empty."""
    root = _Branch()
    for path, size, remark in sorted(rows):
        branch = root
        for part in path.split("/"):
            branch = branch.inner.setdefault(visible(part), _Branch())
        branch.size, branch.remark = size, remark
    lines = list(_lines(root, ""))
    if lines:
        yield from columns(lines, indent=indent, right=(1,))


def _lines(branch: _Branch, margin: str) -> Iterator[tuple[str, str, str]]:
    last = len(branch.inner) - 1
    for number, (name, inner) in enumerate(branch.inner.items()):
        ending = number == last
        yield f"{margin}{'└── ' if ending else '├── '}{name}", inner.size, inner.remark
        yield from _lines(inner, f"{margin}{'    ' if ending else '│   '}")
