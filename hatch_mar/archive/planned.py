"""An archive that is only planned, opened as if it had been written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.archive.members import FileMembers
from hatch_mar.archive.read import Archive
from hatch_mar.archive.write import undigested_seal

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.archive.plan import Plan


def open_planned(plan: Plan, root: Path) -> Archive:
    """Open what `plan`, made of the project in `root`, would put into an archive.

    Its seal has everything but digests, as that of an editable installation: nothing is read.

    Raises:
        UnsafeArchiveError: two members collide.
    """
    members = {member.name: member.source for member in plan.sealed_members()}
    archive = Archive(root, "project", FileMembers(root, members), name=plan.name)
    archive.seal = undigested_seal(plan)
    return archive
