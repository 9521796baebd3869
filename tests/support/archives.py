"""Archives made in a moment, of a handler's source."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.seal import EXAMPLES_DIRECTORY, Example
from hatch_mar.archive.write import write_archive

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def write_mar(
    directory: Path,
    name: str,
    handler: str,
    *,
    version: str = "1.0",
    config: str = "",
    requirements: str = "",
    files: Mapping[str, bytes] | None = None,
    examples: Mapping[bytes, bytes] | None = None,
) -> Path:
    """Write `<name>-<version>.mar` into `directory`, sealed; return its path.

    `handler` is the source of `handler.py`, with a function `handle`; `config` the text of
    model-config.yaml, `requirements` that of requirements.txt; `examples` golden outputs by their
    inputs, which are sent as text.
    """
    members = {"handler.py": textwrap.dedent(handler).encode(), **(files or {})}
    golden = []
    for number, (given, expected) in enumerate((examples or {}).items()):
        names = [f"{EXAMPLES_DIRECTORY}/{number}.{kind}" for kind in ("in", "out")]
        members |= dict(zip(names, (given, expected), strict=True))
        golden.append(Example(input=names[0], output=names[1], content_type="text/plain"))
    if config:
        members["model-config.yaml"] = config.encode()
    if requirements:
        members["requirements.txt"] = requirements.encode()
    manifest = Manifest(
        model_name=name,
        model_version=version,
        handler="handler.py:handle",
        config_file="model-config.yaml" if config else None,
        requirements_file="requirements.txt" if requirements else None,
    )
    plan = Plan(
        name=name,
        version=version,
        manifest=manifest,
        members=tuple(Member(member, data) for member, data in members.items()),
        runtime="custom",
        examples=tuple(golden),
    )
    path = directory / f"{name}-{version}.mar"
    write_archive(plan, path)
    return path
