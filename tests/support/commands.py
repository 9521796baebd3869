"""Command lines, run in this process, and archives that they are about."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive
from hatch_mar.cli import main
from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.archive.plan import Format

WEIGHTS = bytes(range(256)) * 1000


@dataclass(frozen=True, slots=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """The JSON on standard output, which is all there is on it."""
        return json.loads(self.out)


class Program:
    """`hatch-mar`, as its console script calls it."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> Said:
        """Run one command line."""
        with pytest.raises(SystemExit) as exit_:
            main([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        code = exit_.value.code
        assert isinstance(code, int)
        return Said(code, captured.out, captured.err)


def write_referring(
    directory: Path, *more: Reference, form: Format = "mar", **changes: Any
) -> Path:
    """Write an archive that only names its weights, which are a file beside it; return its path.

    `changes` replace fields of the reference, and there may be `more` of them.
    """
    directory.mkdir(parents=True, exist_ok=True)
    source = directory / "big.bin"
    source.write_bytes(WEIGHTS)
    fields: dict[str, Any] = {
        "target": "weights/big.bin",
        "source": source.as_uri(),
        "sha256": hashlib.sha256(WEIGHTS).hexdigest(),
        "size": len(WEIGHTS),
    }
    manifest = Manifest(
        model_name="far",
        model_version="2",
        handler="handler.py:handle",
        serialized_file="weights/big.bin",
    )
    path = directory / ("far-2" if form == "dir" else f"far-2.{form}")
    plan = Plan(
        name="far",
        version="2",
        manifest=manifest,
        members=(Member("handler.py", b"def handle(data, context):\n    return data\n"),),
        runtime="custom",
        references=(Reference(**{**fields, **changes}), *more),
        format=form,
        filename=path.name,
    )
    write_archive(plan, path)
    return path
