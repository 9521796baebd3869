"""Tiny packages, installed or as wheels, for environments and indexes."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def make_package(
    site: Path, name: str, version: str = "1.0", *, requires: Sequence[str] = ()
) -> None:
    """Put a package into `site` as an installer leaves it: one module that knows its version."""
    for member, text in _files(name, version, requires).items():
        path = site / member
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def make_wheel(
    directory: Path, name: str, version: str = "1.0", *, requires: Sequence[str] = ()
) -> Path:
    """Write the wheel of such a package, and return its path."""
    path = directory / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in _files(name, version, requires).items():
            wheel.writestr(member, text)
    return path


def _files(name: str, version: str, requires: Sequence[str]) -> dict[str, str]:
    info = f"{name}-{version}.dist-info"
    extras = sorted({line.split("'")[1] for line in requires if "extra ==" in line})
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras]
    lines += [f"Requires-Dist: {line}" for line in requires]
    files = {
        f"{name.replace('-', '_')}.py": f"version = {version!r}\n",
        f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{member},,\n" for member in (*files, f"{info}/RECORD"))
    return files
