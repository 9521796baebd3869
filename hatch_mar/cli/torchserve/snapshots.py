"""Snapshots: what is served now, as a `config.properties` that a later start can begin with.

TorchServe's files, in TorchServe's place: `$LOG_LOCATION/config/<time>-<kind>.cfg`. One is written
when everything has started, one after each change through the management API, one at the end.
"""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hatch_mar.archive.staging import staged_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.serve import Service

Kind = Literal["startup", "snapshot", "shutdown"]
LOG_VARIABLE = "LOG_LOCATION"
KEY = "model_snapshot"
SUFFIX = ".cfg"
_FIELDS = (
    *("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay"),
    *("responseTimeout", "startupTimeout"),
)
logger = logging.getLogger("hatch_mar.cli")


def snapshot_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where snapshots are."""
    return Path(environ.get(LOG_VARIABLE) or "logs") / "config"


def newest_snapshot(directory: Path) -> Path | None:
    """Return the last one written, or None."""
    return max(directory.glob(f"*{SUFFIX}"), key=lambda path: path.name, default=None)


class Snapshots:
    """Writes them."""

    def __init__(self, directory: Path, texts: Mapping[str, str]) -> None:
        """Write into `directory` what the configuration says (`texts`), and what is served."""
        self._directory = directory
        self._texts = dict(texts)

    def save(self, kind: Kind, service: Service) -> None:
        """Write one. A disk that does not take it is told in the log, and stops nothing."""
        import javaproperties  # noqa: PLC0415 - of the extra that serves

        now = time.time()
        stamp = datetime.fromtimestamp(now).astimezone().strftime("%Y%m%d%H%M%S%f")[:-3]
        name = f"{stamp}-{kind}{SUFFIX}"
        models = describe_served(service)
        document = {
            "name": name,
            "modelCount": sum(map(len, models.values())),
            "created": int(now * 1000),
            "models": models,
        }
        texts = {**self._texts, KEY: json.dumps(document, indent=2)}
        data = javaproperties.dumps(texts, comments="Saving snapshot").encode("latin-1")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            with staged_file(self._directory / name) as file:
                file.write(data)
        except OSError as error:
            logger.warning("%s: the snapshot cannot be written: %s", name, error)


def describe_served(service: Service) -> dict[str, dict[str, dict[str, Any]]]:
    """Return every version of every model as snapshots have it."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for model in service.list_models():
        name = model["modelName"]
        default, _ = service.versions(name)
        found[name] = {
            each["modelVersion"]: {
                "defaultVersion": each["modelVersion"] == default,
                "marName": each["modelUrl"].rstrip("/").rpartition("/")[2],
                **{field: each[field] for field in _FIELDS},
                "runtimeType": each["runtime"],
            }
            for each in service.describe(name, "all")
        }
    return found
