"""`MarSpec`: what an author asked for, with every default filled in and every file found."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.archive.plan import Format
    from hatch_mar.archive.seal import Example
    from hatch_mar.weights.reference import Reference

Runtime = Literal["eager", "torchscript", "onnx", "tensorrt", "exported", "aoti", "custom"]
Initialize = Literal["inherited", "own", "unknown"]
"""Whose `initialize` loads the model: BaseHandler's, the author's, or who knows."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and where it came from: a line of `hatch-mar check --explain`."""

    key: str
    """Key path below `[tool.mar]`, such as `archive.format`."""
    value: Any
    origin: str
    """`pyproject.toml: tool.mar.archive.format`, `model-config.yaml: batchSize`, `default`, ..."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One file on its way into the archive."""

    name: str
    """POSIX path in the archive, or in the extra-files tarball."""
    source: Path | bytes
    key: str
    """The key that asked for it, such as `extra-files[0]`: a collision names both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """The handler, found by reading and never by importing."""

    manifest: str
    """What the manifest says: `handler.py`, `handler:function`, `image_classifier`."""
    kind: Literal["default", "class", "function", "factory", "installed"]
    found: str
    """How it was found, for a person."""
    initialize: Initialize
    own_inference: bool = False
    """Whether a class brings its own `inference` or `handle`, as far as anybody can see."""
    path: Path | None = None
    """Its source, if that is part of the project."""
    entries: tuple[Entry, ...] = ()
    """The handler's own files in the archive: its source, and a shim where TorchServe needs one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightsFile:
    """One file of weights: in the archive, or somewhere else."""

    target: str
    """Path in the model directory."""
    key: str = "weights"
    """The key that asked for it, such as `weights[0]`."""
    path: Path | None = None
    """The file to embed."""
    reference: Reference | None = None
    reason: str = ""
    """Why it is in the archive, or is not, as the second half of a sentence."""
    primary: bool = False
    at_path: bool = False
    """Whether model-config.yaml alone says where it is on the server's disk: the manifest does not
    name it, so that handlers look there in TorchServe as well."""
    trusted_pickle: bool = False
    named_by: str = ""
    """Target of the file that names this one, if the author did not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveSettings:
    """`[tool.mar.archive]`."""

    enabled: bool = True
    directory: Path = Path()
    """Where the archive goes: absolute, or relative to the build's own directory (`dist`)."""
    filename: str
    format: Format = "mar"
    compression: Literal["stored", "deflated"] = "stored"


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSettings:
    """`[tool.mar.wheel]`."""

    embed: Literal["auto", "always", "never"] = "auto"
    embed_limit: int
    """Bytes above which weights must not be embedded unless the author insists."""
    script: str | None
    """Name of the console script, or None for no script."""
    tag: str = "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class MarSpec:
    """A project, understood. `planning.make_plan` turns it into a `Plan`."""

    root: Path
    name: str
    """The served name."""
    version: str
    description: str
    package: str
    """Name of the generated top-level package."""
    handler: Handler
    runtime: Runtime
    runtime_reason: str
    """The row of the flowchart that was taken, for a person."""
    model_file: str | None = None
    """What the manifest calls the model file."""
    weights: tuple[WeightsFile, ...] = ()
    entries: tuple[Entry, ...] = ()
    """Every file of the archive but the weights and the extra-files tarball."""
    tarball: str | None = None
    """Archive name of the extra-files tarball to build, if any."""
    tarball_entries: tuple[Entry, ...] = ()
    requirements_file: str | None = None
    config_file: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    """The archive's whole model-config.yaml."""
    examples: tuple[Example, ...] = ()
    answers: tuple[Path, ...] = ()
    """The project's file with the expected output of each example, in their order."""
    archive: ArchiveSettings
    wheel: WheelSettings
    created_on: str
    """`createdOn` of the manifest."""
    files: tuple[Path, ...] = ()
    """Every file of the project that the archive needs: an sdist must hold them all."""
    notes: tuple[str, ...] = ()
    """Decisions and warnings worth a line each."""
    stock: tuple[str, ...] = ()
    """Those of the notes that say why stock TorchServe cannot serve the model as it is."""
    settings: tuple[Setting, ...] = ()

    @property
    def script(self) -> str | None:
        """Name of the console script, or None for no script."""
        return self.wheel.script

    @property
    def references(self) -> tuple[Reference, ...]:
        """The weights that the archive names instead of carrying."""
        return tuple(file.reference for file in self.weights if file.reference is not None)
