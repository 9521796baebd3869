"""`ts.handler_utils.distributed.deepspeed`."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any


def create_checkpoints_json(model_path: str, checkpoints_json: str) -> None:
    """Write DeepSpeed's list of the `.bin` and `.pt` files in `model_path`."""
    found = [
        str(path)
        for path in sorted(Path(model_path).rglob("*"))
        if path.suffix in {".bin", ".pt"} and path.is_file()
    ]
    listed = {"type": "ds_model", "checkpoints": found, "version": 1.0}
    Path(checkpoints_json).write_text(json.dumps(listed), encoding="utf-8")


def get_ds_engine(model: Any, ctx: Any) -> Any:  # noqa: ANN401 - a module of torch, and a Context
    """Return `model` in a DeepSpeed engine, as the `deepspeed` section of the config describes it.

    Raises:
        ImportError: DeepSpeed is not installed.
        ValueError: there is no such section, or not the file that it names.
    """
    section = ctx.model_yaml_config.get("deepspeed")
    if section is None:
        raise ValueError(f"{ctx.model_name}: model-config.yaml: `deepspeed` is missing")
    try:
        deepspeed: Any = importlib.import_module("deepspeed")
    except ModuleNotFoundError as error:
        raise ImportError(
            "a DeepSpeed engine needs deepspeed, which is not installed: pip install deepspeed, or "
            "name it in the archive's requirements.txt",
            name=error.name,
        ) from error
    directory = Path(ctx.system_properties["model_dir"])
    model_path = ctx.model_yaml_config["handler"]["model_path"]
    config = checkpoint = None
    if "config" in section:
        config = directory / section["config"]
        if not config.exists():
            raise ValueError(
                f"{ctx.model_name}: deepspeed.config: there is no file {config.name!r}"
            )
    if "checkpoint" in section:
        checkpoint = directory / section["checkpoint"]
        create_checkpoints_json(model_path, str(checkpoint))
    return deepspeed.init_inference(
        model,
        config=None if config is None else str(config),
        base_dir=model_path,
        checkpoint=None if checkpoint is None else str(checkpoint),
    )
