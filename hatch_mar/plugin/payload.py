"""The generated package of a wheel: `<project>_mar/`, with the unpacked model in it.

hatchling takes files, each with a place in the wheel. A file that lies in the project would lose
its own place there by being given a second one, and no file can be given two; so hatchling is shown
a scratch directory of links.
"""

from __future__ import annotations

import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatch_mar.archive.editable import MAP_NAME, Source, Tarball, make_map
from hatch_mar.archive.packaged import MODEL_DIRECTORY
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import undigested_seal
from hatch_mar.project.tarball import is_gzip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hatch_mar.project.spec import MarSpec

STORED_FROM = 8 * 1024 * 1024
"""Bytes from which a member is added to the finished wheel, stored: hatchling deflates everything,
at 30 MiB/s and to no use for weights."""

INIT = '''\
"""The model {name} {version}, as an installed package: `model/` is what its archive holds."""
'''
MAIN = '''\
"""Serve {name} {version}: `python -m {package}`."""

from hatch_mar.cli.serve import serve_package


def main() -> None:
    """Start the runner, with the options of `hatch-mar serve`."""
    serve_package("{package}")


if __name__ == "__main__":
    main()
'''


def package_members(spec: MarSpec) -> list[Member]:
    """Return the Python files of the generated package."""
    values = {"name": spec.name, "version": spec.version, "package": spec.package}
    return [
        Member(f"{spec.package}/__init__.py", INIT.format(**values).encode()),
        Member(f"{spec.package}/__main__.py", MAIN.format(**values).encode()),
    ]


def model_members(package: str, members: Iterable[Member]) -> list[Member]:
    """Return `members` of an archive at the places they have in the wheel."""
    prefix = f"{package}/{MODEL_DIRECTORY}"
    return [Member(f"{prefix}/{each.name}", each.source, each.executable) for each in members]


def editable_members(spec: MarSpec, plan: Plan) -> list[Member]:
    """Return what stands for the model in an editable wheel: a map into the source tree."""
    sources: dict[str, Source] = {each.name: each.source for each in plan.sealed_members()}
    if spec.tarball is not None:
        files = {entry.name: entry.source for entry in spec.tarball_entries}
        sources[spec.tarball] = Tarball(files, gzip=is_gzip(spec.tarball))
    return [Member(f"{spec.package}/{MAP_NAME}", make_map(sources, undigested_seal(plan)))]


@dataclass(frozen=True, slots=True)
class Stage:
    """Files as hatchling is shown them."""

    scratch: tempfile.TemporaryDirectory[str]
    """Gone when the build ends, however it ends."""
    force_include: Mapping[str, str]
    """Absolute path to place in the wheel, for hatchling's `build_data`."""
    stored: tuple[Member, ...]
    """Big members, which are added when the wheel is there."""

    def lay_out(self, members: Iterable[Member]) -> list[str]:
        """Lay out more `members`, and return where they are."""
        places = [Path(self.scratch.name, member.name) for member in members]
        for member, place in zip(members, places, strict=True):
            place.parent.mkdir(parents=True, exist_ok=True)
            _lay(member, place)
        return [str(place) for place in places]

    def close(self) -> None:
        """Remove the scratch directory."""
        self.scratch.cleanup()


def stage(members: Iterable[Member]) -> Stage:
    """Lay out `members`, named by their places in the wheel, for hatchling to pick up."""
    scratch = tempfile.TemporaryDirectory(prefix="hatch-mar-", ignore_cleanup_errors=True)
    force_include = {}
    stored = []
    for member in members:
        if isinstance(member.source, Path) and member.size() >= STORED_FROM:
            stored.append(member)
            continue
        place = Path(scratch.name, member.name)
        place.parent.mkdir(parents=True, exist_ok=True)
        _lay(member, place)
        force_include[str(place)] = member.name
    return Stage(scratch, force_include, tuple(stored))


def stage_sources(files: Mapping[str, Path]) -> Stage:
    """Have `files`, by their places in an sdist, packed as files.

    hatchling packs a symbolic link as a link, which would point to nothing where the sdist is
    unpacked. It takes a file once, so that of two links to one file the second becomes a copy.
    """
    scratch = tempfile.TemporaryDirectory(prefix="hatch-mar-", ignore_cleanup_errors=True)
    force_include: dict[str, str] = {}
    for place, path in sorted(files.items(), key=lambda item: item[1].is_symlink()):
        real = path.resolve()
        if str(real) in force_include:
            real = Path(scratch.name, place)
            real.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, real)
        force_include[str(real)] = place
    return Stage(scratch, force_include, ())


def _lay(member: Member, place: Path) -> None:
    """Link a member's source; copy it where hatchling would take over a mode that is not ours."""
    if isinstance(member.source, bytes):
        place.write_bytes(member.source)
    elif bool(member.source.stat().st_mode & stat.S_IXUSR) == member.executable:
        place.symlink_to(member.source.resolve())
        return
    else:
        shutil.copyfile(member.source, place)
    place.chmod(0o755 if member.executable else 0o644)
