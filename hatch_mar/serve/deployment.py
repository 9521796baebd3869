"""A model version that is ready to be started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.archive.manifest import Manifest
    from hatch_mar.archive.modelconfig import ModelConfig
    from hatch_mar.archive.seal import Seal
    from hatch_mar.serve.tuning import Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What `hatch_mar.serve.rundir.prepare` makes of an archive.

    Values that an operator overrides are replaced with `dataclasses.replace`, in here and in
    `config`, before the deployment is registered.
    """

    name: str
    version: str
    directory: Path
    """The run directory: the workers' cwd and first on their `sys.path`."""
    handler: str
    """As in the manifest, or the operator's own."""
    config: ModelConfig
    manifest: Manifest | None = None
    """None where the archive has no manifest."""
    seal: Seal | None = None
    url: str = ""
    """What the operator asked for: `modelUrl` of the describe object."""
    python: str | None = None
    """Interpreter of a venv of the model's own; None: the runner's."""
    workers: int | None = None
    """How many to start, whatever everybody else says; None: see `count_workers`."""
    loaded_at_startup: bool = True
    tunings: tuple[Tuning, ...] = ()
    """What batches were measured to cost, on whatever devices."""
    warnings: tuple[str, ...] = ()
    """What was shrugged at in the archive and its config, for the operator to read."""
