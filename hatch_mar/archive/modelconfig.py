"""model-config.yaml."""

from __future__ import annotations

from typing import Any

from hatch_mar.errors import ArchiveError


def parse_yaml(data: bytes, where: str) -> Any:  # noqa: ANN401 - whatever the file says
    """Parse YAML; whatever is wrong with it is an `ArchiveError` that starts with `where`."""
    import yaml  # noqa: PLC0415 - only those who have such a file pay for it

    try:
        return yaml.safe_load(data)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ArchiveError(f"{where}: {error}") from error
