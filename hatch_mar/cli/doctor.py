"""`hatch-mar doctor`: whether this environment can build and serve, and what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from dataclasses import asdict
from pathlib import Path
from textwrap import TextWrapper
from typing import TYPE_CHECKING

import click

from hatch_mar.cli.environment import (
    Finding,
    cpu_count,
    find_compiler,
    look_at_build_tools,
    look_at_extras,
    look_at_models,
    look_at_old_programs,
    look_at_python,
    look_at_variables,
    missing_of,
    note,
    ok,
    problem,
    torch_cuda,
)
from hatch_mar.cli.output import columns, emit, json_option, say, told_as_json, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hatch_mar.archive.read import Archive

PORTS = {8080: "inference", 8081: "management", 8082: "metrics"}
SIGNS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
LITTLE_ROOM = 5_000_000_000
"""Bytes of free disk below which the weights of a model of today may not fit."""
WIDTH = 76
"""Columns of a message: with what stands before it a line fits a terminal."""
# Paths and commands are there to be copied: a line ends at a space, or not at all.
_WRAPPER = TextWrapper(WIDTH, break_long_words=False, break_on_hyphens=False)
LIBRARIES = {"onnx": "onnxruntime", "custom": ""}
"""What a runtime needs to be installed, where that is not torch."""


@click.command()
@click.argument("target", required=False)
@json_option
def command(target: str | None, *, as_json: bool) -> None:
    """Say whether this environment can build and serve models, and what to do where it cannot.

    With TARGET, a project, archive or installed model, also whether it can serve that one. Exits
    with 1 if there is a problem.
    """
    with told_as_json(target or "", as_json=as_json):
        findings = list(examine(os.environ, Path.cwd()))
        if target is not None:
            findings += list(examine_for(target, os.environ))
    troubled = any(each.state == "problem" for each in findings)
    if as_json:
        emit({"findings": [asdict(each) for each in findings], "problems": _problems(findings)})
    else:
        for line in _render(findings):
            say(line)
    sys.exit(1 if troubled else 0)


def examine(environ: Mapping[str, str], directory: Path) -> Iterator[Finding]:
    """Yield everything that is to be said of this environment."""
    yield from look_at_python(environ, directory)
    yield from look_at_build_tools()
    yield from look_at_extras()
    yield from look_at_devices()
    compiler = find_compiler(environ)
    if compiler is None:
        message = "none: torch.compile needs one"
        yield note("compiler", message, "install g++, if a model-config.yaml has `pt2`")
    else:
        yield ok("compiler", compiler)
    yield from look_at_ports()
    yield from look_at_cache(environ)
    yield from look_at_variables(environ)
    yield from look_at_old_programs()
    yield from look_at_models()


def look_at_devices() -> Iterator[Finding]:
    """Yield the GPUs, the driver, and whether torch and the driver go together."""
    from hatch_mar.serve.devices.discovery import discover, read_driver  # noqa: PLC0415

    yield ok("processors", str(cpu_count()))
    driver, cuda = read_driver(), torch_cuda()
    if driver is None:
        yield ok("gpus", "none, or no driver that NVML can ask: models run on the processor")
        return
    newest = f"{driver.cuda // 1000}.{driver.cuda % 1000 // 10}"
    yield ok("driver", f"{driver.version}, CUDA {newest}")
    for device in discover(os.environ):
        yield ok(str(device), f"{device.name}, {device.memory} MB, {device.uuid}")
    if not discover(os.environ):
        visible_devices = os.environ.get("CUDA_VISIBLE_DEVICES")
        yield note("gpus", f"CUDA_VISIBLE_DEVICES={visible_devices!r} hides all of them")
    elif cuda is None:
        yield note("torch", "is missing, or built without CUDA", "install torch for CUDA")
    elif int(cuda.partition(".")[0]) > driver.cuda // 1000:
        yield problem(
            "torch",
            f"is built for CUDA {cuda}, and the driver runs {newest} at most",
            "update the driver, or install torch for an older CUDA",
        )
    else:
        yield ok("torch", f"built for CUDA {cuda}")


def look_at_ports() -> Iterator[Finding]:
    """Yield which of the ports that `hatch-mar serve` takes are free."""
    taken = [port for port in PORTS if not _is_free(port)]
    free = [str(port) for port in PORTS if port not in taken]
    for port in taken:
        message = f"{port} ({PORTS[port]}) is taken by another program"
        yield note("ports", message, "hatch-mar serve --port P takes P, P+1 and P+2")
    if free:
        yield ok("ports", f"{', '.join(free)} {'is' if len(free) == 1 else 'are'} free")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def look_at_cache(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield where fetched weights are kept, how much is there, and what would still fit."""
    from hatch_mar.errors import WeightsError  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.weights.cache import Cache  # noqa: PLC0415
    from hatch_mar.weights.fetch import is_offline  # noqa: PLC0415
    from hatch_mar.weights.size import render_size  # noqa: PLC0415
    from hatch_mar.weights.upkeep import list_items  # noqa: PLC0415

    if is_offline(environ):
        yield note("offline", "HATCH_MAR_OFFLINE is set: what is not in the cache is not fetched")
    try:
        cache = Cache(environ=environ)
    except WeightsError as error:
        yield note("cache", "nobody knows where it would be", str(error))
        return
    directory = cache.directory
    there = next(each for each in (directory, *directory.parents) if each.exists())
    if not there.is_dir() or (there != directory and not _is_writable(there)):
        message = f"{directory} cannot be written"
        yield problem("cache", message, "set HATCH_MAR_CACHE_DIR to a directory that can")
        return
    items = list_items(cache)
    held = render_size(sum(item.size for item in items))
    free = shutil.disk_usage(there).free
    files = f"{len(items)} file{'' if len(items) == 1 else 's'}"
    message = f"{directory}: {held} in {files}, {render_size(free)} free"
    if not _is_writable(there):
        remedy = "nothing new can be fetched; set HATCH_MAR_CACHE_DIR to a directory that can"
        yield note("cache", f"{directory} cannot be written: {held} in {files}", remedy)
    elif free < LITTLE_ROOM:
        remedy = "make room (hatch-mar cache prune), or set HATCH_MAR_CACHE_DIR to another disk"
        yield note("cache", message, remedy)
    else:
        yield ok("cache", message)


def _is_writable(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK)


def examine_for(target: str, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield whether the model `target` finds here what it needs.

    Raises:
        ProblemsError: it is a project, and wrong.
        TargetError: there is no such model.
        ArchiveError: it cannot be read.
    """
    from hatch_mar.cli.subject import find_subject  # noqa: PLC0415 - see hatch_mar.cli

    with find_subject(target).open() as archive:
        name = archive.manifest.model_name
        findings = [
            *_look_at_runtime(name, archive),
            *_look_at_requirements(name, archive),
            *_look_at_references(name, archive, environ),
            *_look_at_wishes(name, archive),
        ]
    yield from findings or [ok(name, "finds here what it needs")]


def _look_at_runtime(name: str, archive: Archive) -> Iterator[Finding]:
    runtime = archive.seal.runtime if archive.seal else "custom"
    library = LIBRARIES.get(runtime, "torch")
    if library and not _is_installed(library):
        extra = "onnx" if library == "onnxruntime" else "torch"
        yield problem(
            name,
            f"is loaded as {runtime}, which needs {library}",
            f"pip install 'hatch-mar[{extra}]'",
        )
    if not _is_installed("uvicorn"):
        yield problem(name, "there is no runner here", "pip install 'hatch-mar[serve]'")


def _is_installed(module: str) -> bool:
    from importlib.util import find_spec  # noqa: PLC0415 - a top-level module is not imported by it

    return find_spec(module) is not None


def _look_at_requirements(name: str, archive: Archive) -> Iterator[Finding]:
    from hatch_mar.archive.requirements import logical_lines  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.serve.environments.requirements import find_missing  # noqa: PLC0415 - the same

    file = archive.manifest.requirements_file
    if file is None or file not in archive:
        return
    try:
        lines = [line for _, line in logical_lines(archive.read(file))]
    except UnicodeDecodeError:
        return  # `check` says so
    for missing in find_missing(lines):
        yield problem(name, f"{file}: {missing}", f"pip install '{missing.wanted}'")


def _look_at_references(
    name: str, archive: Archive, environ: Mapping[str, str]
) -> Iterator[Finding]:
    from hatch_mar.errors import WeightsError  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.weights.cache import Cache  # noqa: PLC0415
    from hatch_mar.weights.fetch import is_offline  # noqa: PLC0415

    for reference in archive.seal.references if archive.seal else ():
        try:
            here = Cache(environ=environ).has(reference)
        except WeightsError as error:
            yield problem(name, f"{reference.target} has to be fetched", str(error))
            continue
        if here:
            yield ok(name, f"{reference.target} is in the cache")
        elif is_offline(environ):
            message = f"{reference.target} is not in the cache, and HATCH_MAR_OFFLINE is set"
            yield problem(name, message, "hatch-mar pull it where there is a network, or unset it")
        elif missing := missing_of(reference.source.partition(":")[0]):
            message = f"{reference.target} has to be fetched, which needs {', '.join(missing)}"
            extra = reference.source.partition(":")[0]
            yield problem(name, message, f"pip install 'hatch-mar[{extra}]'")
        else:
            yield note(name, f"{reference.target} will be fetched when the model is served")


def _look_at_wishes(name: str, archive: Archive) -> Iterator[Finding]:
    from hatch_mar.archive.modelconfig import read_model_config  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.serve.devices.discovery import discover  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.serve.devices.placement import Placement  # noqa: PLC0415

    config = read_model_config(archive.config)
    devices = discover(os.environ)
    if config.device_type == "gpu" and not devices:
        yield note(
            name, "asks for a GPU (deviceType), and there is none", "it runs on the processor"
        )
    elif missing := Placement(devices).missing(config.device_ids) if devices else []:
        numbers = ", ".join(map(str, missing))
        yield note(name, f"deviceIds: there is no GPU {numbers}", "the list is ignored")


def _problems(findings: list[Finding]) -> list[dict[str, str]]:
    return [
        {"file": "", "key": each.topic, "message": f"{each.message}; {each.remedy}"}
        for each in findings
        if each.state == "problem"
    ]


def _render(findings: list[Finding]) -> Iterator[str]:
    rows: list[tuple[str, str, str]] = []
    for each in findings:
        head = SIGNS[each.state], each.topic
        for line in _WRAPPER.wrap(visible(each.message)):
            rows.append((*head, line))
            head = "", ""
        if each.remedy:
            rows += [("", "", line) for line in _WRAPPER.wrap(f"-> {visible(each.remedy)}")]
    yield from columns(rows, indent="")
    yield ""
    yield ", ".join(
        f"{count or 'no'} {word}{'' if count == 1 else 's'}"
        for word in ("problem", "note")
        for count in [sum(each.state == word for each in findings)]
    )
