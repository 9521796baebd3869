"""A project that a test writes, file by file, and reads as a build would."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.errors import ProblemsError
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from hatch_mar.weights.lockfile import LOCK_NAME, Lock, render_lock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hatch_mar.archive.plan import Member, Plan
    from hatch_mar.project.spec import MarSpec
    from hatch_mar.weights.lockfile import LockedFile

PROJECT = """\
[project]
name = "digits"
version = "1.0"
description = "what it does"
dependencies = ["hatch-mar[serve]", "torch>=2.10", "numpy>=1.26"]
"""
FUNCTION_HANDLER = "def handle(data, context):\n    return data\n"
INHERITING_HANDLER = (
    "from ts.torch_handler.base_handler import BaseHandler\n\n\nclass H(BaseHandler):\n    pass\n"
)
FACTORY_HANDLER = (
    "from base_handler import handler_factory\n\nhandler = handler_factory(init_function=dict)\n"
)


@dataclass
class Scratch:
    """A project below `root`, with a handler that is a function."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)
    hook: dict[str, Any] = field(default_factory=dict)

    def write(self, files: Mapping[str, str | bytes]) -> None:
        """Write files by their paths."""
        for name, content in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else textwrap.dedent(content).encode()
            path.write_bytes(data)

    def configure(self, mar: str, *, project: str = PROJECT) -> None:
        """Write pyproject.toml with `mar` as `[tool.mar]`."""
        text = f"{project}\n[tool.mar]\n{textwrap.dedent(mar)}"
        (self.root / "pyproject.toml").write_text(text, encoding="utf-8")

    def lock(self, *files: LockedFile) -> None:
        """Write mar.lock."""
        (self.root / LOCK_NAME).write_text(render_lock(Lock(files=files)), encoding="utf-8")

    def spec(
        self, *, version: str | None = None, dependencies: Sequence[str] | None = None
    ) -> MarSpec:
        """Read the project, which must be right."""
        return read_spec(
            self.root,
            hook=self.hook,
            environ=self.environ,
            version=version,
            dependencies=dependencies,
        )

    def plan(self) -> Plan:
        """Plan its archive."""
        return make_plan(self.spec())

    def members(self) -> dict[str, Member]:
        """Return the members of its archive by name."""
        return {member.name: member for member in self.plan().members}

    def content(self, name: str) -> bytes:
        """Return the bytes of one member."""
        source = self.members()[name].source
        return source if isinstance(source, bytes) else source.read_bytes()

    def problems(self) -> list[str]:
        """Read the project, which must be wrong, and return what is."""
        with pytest.raises(ProblemsError) as caught:
            self.spec()
        return [str(problem) for problem in caught.value.problems]

    def problem(self) -> str:
        """Return the one thing that is wrong."""
        (problem,) = self.problems()
        return problem
