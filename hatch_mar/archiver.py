"""torch-model-archiver from Python, under the names that scripts know.

    from hatch_mar.archiver import ModelArchiver, ModelArchiverConfig

    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(model_name="digits", version="1.0", handler="handler.py")
    )

`hatch-mar shims install` makes the same names importable from `model_archiver`.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from typing import TYPE_CHECKING

from hatch_mar.archive.manifest import ARCHIVER_VERSION, Manifest
from hatch_mar.archive.write import write_archive
from hatch_mar.errors import HatchMarError, ModelArchiverError
from hatch_mar.project.archiver.order import ArchiverOptions, Order, read_order

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = [
    "ModelArchiver",
    "ModelArchiverConfig",
    "ModelArchiverError",
    "ModelExportUtils",
    "RuntimeType",
    "generate_model_archive",
    "package_model",
]

__version__ = ARCHIVER_VERSION

_logger = logging.getLogger("hatch_mar.archiver")


class RuntimeType(Enum):
    """What may run a handler."""

    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"


@dataclass
class ModelArchiverConfig:
    """The options, one field each; scripts assign to them, so it is not frozen."""

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    """Separated by commas."""
    runtime: str = RuntimeType.PYTHON.value
    export_path: str = field(default_factory=os.getcwd)
    archive_format: str = "default"
    """`default`, `zip-store`, `tgz` or `no-archive`."""
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None
    model_path: str | None = None
    """Where relative files are looked for first; not a field of the original."""

    @classmethod
    def from_args(cls, args: Namespace) -> ModelArchiverConfig:
        """Take each field that `args` has."""
        return cls(
            **{each.name: getattr(args, each.name) for each in fields(cls) if each.name in args}
        )


class ModelArchiver:
    """The one thing that the original offers."""

    @staticmethod
    def generate_model_archive(config: ModelArchiverConfig) -> None:
        """Write the archive that `config` asks for.

        Raises:
            ModelArchiverError: it makes no archive, or cannot be written; nothing is left then.
        """
        generate_model_archive(config)


class ModelExportUtils:
    """What of the original's inner parts `package_model` cannot be called without."""

    @staticmethod
    def generate_manifest_json(config: ModelArchiverConfig) -> str:
        """Return the manifest that the archive of `config` will have.

        Raises:
            ModelArchiverError: `config` makes no archive.
        """
        return _read(config).plan.manifest.to_json().decode()


def generate_model_archive(config: ModelArchiverConfig | None = None) -> None:
    """Write the archive that `config` asks for; without one, be the program and exit.

    Raises:
        ModelArchiverError: it makes no archive, or cannot be written; nothing is left then.
    """
    if config is None:
        from hatch_mar.cli.torch_model_archiver import main  # noqa: PLC0415 - only the program

        main()
    _write(_read(config))


def package_model(config: ModelArchiverConfig, manifest: str) -> None:
    """Write the archive that `config` asks for, with `manifest`, JSON, for its manifest.

    Raises:
        ModelArchiverError: as `generate_model_archive`, or `manifest` is none.
    """
    order = _read(config)
    try:
        given = Manifest.from_dict(json.loads(manifest), fallback_name=config.model_name)
    except (HatchMarError, ValueError, AttributeError) as error:
        raise ModelArchiverError(f"the manifest: {error}") from error
    _write(replace(order, plan=replace(order.plan, manifest=given)))


def _read(config: ModelArchiverConfig) -> Order:
    given = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in asdict(config).items()
        if value is not None
    }
    try:
        return read_order(ArchiverOptions(**given))
    except HatchMarError as error:
        raise ModelArchiverError(str(error)) from error


def _write(order: Order) -> None:
    for warning in order.warnings:
        _logger.warning("%s", warning)
    try:
        write_archive(order.plan, order.path)
    except HatchMarError as error:
        raise ModelArchiverError(str(error)) from error
