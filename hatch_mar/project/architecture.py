"""The model file: the architecture of an eager model, and the class that a server must find in it.

TorchServe accepts a model file with exactly one class and calls it without arguments. Where the
author's has several, or wants arguments, the archive gets a model file of its own that fits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hatch_mar.project.source import find_flaw_of_module
from hatch_mar.project.spec import Entry
from hatch_mar.project.suggestion import did_you_mean

if TYPE_CHECKING:
    from hatch_mar.project.reading import Reading

KEY = ("model-file",)
SHIM = "hatch_mar_model.py"
SHIM_SOURCE = '''\
"""Made by hatch-mar: the one class that a model server looks for, ready to be called."""

from {module} import {name} as _Model


class Model(_Model):
    """`{name}` of `{module}`."""

    def __init__(self):
        super().__init__({arguments})
'''


@dataclass(frozen=True, slots=True)
class Architecture:
    """What the manifest calls the model file, and the files behind it."""

    manifest: str
    entries: tuple[Entry, ...]


def resolve_architecture(reading: Reading) -> Architecture | None:
    """Return the model file; None if there is none, or after complaining."""
    table = reading.table
    arguments_fit = _check_arguments(reading, table.model_args)
    if table.model_file is None:
        if table.model_class is not None:
            reading.complain(("model-class",), "needs `model-file`, the file that has the class")
        return None
    path = reading.find_file(KEY, table.model_file)
    if path is None:
        return None
    flaw = find_flaw_of_module(path.stem) if path.suffix == ".py" else "is not a Python file"
    if flaw is not None:
        reading.complain(KEY, f"'{table.model_file}' {flaw}")
        return None
    module = reading.module(path)
    chosen = _choose_class(reading, list(module.classes)) if module else None
    if module is None or chosen is None or not arguments_fit:
        return None
    entry = Entry(path.name, path, "model-file")
    if len(module.classes) == 1 and not table.model_args:
        return Architecture(path.name, (entry,))
    arguments = ", ".join(f"{name}={value!r}" for name, value in table.model_args.items())
    shim = SHIM_SOURCE.format(module=path.stem, name=chosen, arguments=arguments)
    return Architecture(SHIM, (entry, Entry(SHIM, shim.encode(), "model-file")))


def _choose_class(reading: Reading, classes: list[str]) -> str | None:
    file, wanted = reading.table.model_file, reading.table.model_class
    if "model-class" in reading.broken:
        return None
    if wanted is not None:
        if wanted in classes:
            return wanted
        hint = did_you_mean(wanted, classes)
        reading.complain(("model-class",), f"{file} has no class '{wanted}'{hint}")
        return None
    if len(classes) == 1:
        return classes[0]
    if classes:
        names = ", ".join(classes)
        reading.complain(
            KEY, f"{file} has {len(classes)} classes ({names}); say which with `model-class`"
        )
    else:
        reading.complain(KEY, f"{file} has no class")
    return None


def _check_arguments(reading: Reading, arguments: dict[str, Any]) -> bool:
    """Say whether all of `model-args` can be written down as Python and as YAML."""
    fits = True
    for name, value in arguments.items():
        key = ("model-args", name)
        if not name.isidentifier():
            reading.complain(key, "is no name of a Python argument")
            fits = False
        elif not _is_plain(value):
            reading.complain(key, f"{value!r} is no string, finite number, boolean, array or table")
            fits = False
    return fits


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (str, int, bool))
