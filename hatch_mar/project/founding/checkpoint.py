"""What a file of weights is, found by reading it: neither torch nor onnx is imported, nothing runs.

A suffix says little: torch gives `.pt` to weights, to TorchScript and to whole pickled models.
"""

from __future__ import annotations

import errno
import json
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hatch_mar.project.founding.onnx_graph import read_graph
from hatch_mar.project.founding.pickled import Pickled, Tensor, read_legacy, read_pickle
from hatch_mar.project.reading import is_lfs_pointer

if TYPE_CHECKING:
    from pathlib import Path

Kind = Literal[
    "state_dict", "safetensors", "torchscript", "tensorrt", "exported", "aoti", "onnx", "engine"
]

SUFFIXES: dict[str, tuple[str, ...]] = {
    "state_dict": (".pt", ".pth", ".bin", ".ckpt"),
    "safetensors": (".safetensors",),
    "torchscript": (".pt",),
    "tensorrt": (".pt", ".ts"),
    "exported": (".pt2",),
    "aoti": (".pt2",),
    "onnx": (".onnx",),
    "engine": (".engine", ".plan", ".trt"),
}
"""By these a server knows each kind again; the first is the usual one."""
NAMES: dict[str, str] = {
    "state_dict": "a state_dict",
    "safetensors": "safetensors",
    "torchscript": "TorchScript",
    "tensorrt": "TorchScript with TensorRT engines",
    "exported": "a program of torch.export",
    "aoti": "a package of AOTInductor",
    "onnx": "ONNX",
    "engine": "a TensorRT engine",
}
LARGEST_HEADER = 100 << 20
"""Bytes that a safetensors header may have, by that format's own rule."""
LARGEST_RECORD = 64 << 20
"""Bytes of a pickle worth reading: it names the tensors, whose numbers are elsewhere."""
FOREIGN = {
    b"\x89HDF": "an HDF5 file, as Keras writes it; export the model to ONNX",
    b"GGUF": "a GGUF file of llama.cpp, which neither torch nor ONNX Runtime reads",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What was found."""

    kind: Kind
    tensors: tuple[Tensor, ...] = ()
    """Weights by name, of a state_dict; the first ones first."""
    inputs: tuple[Tensor, ...] = ()
    """What an ONNX graph is fed; an unknown dimension is 0."""
    companions: tuple[str, ...] = ()
    """Files beside an ONNX model that hold its weights."""


def read_checkpoint(path: Path) -> Checkpoint:
    """Find out what `path` is.

    Raises:
        ValueError: nothing that can be served; the message says what it is, and what to do.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        magic = file.read(16)
    if not magic:
        raise ValueError("is empty")
    if is_lfs_pointer(path):
        raise ValueError("is a Git LFS pointer; run `git lfs pull`")
    if magic[:2] == b"PK":
        return _read_zip(path)
    for start, what in FOREIGN.items():
        if magic.startswith(start):
            raise ValueError(f"is {what}")
    if path.suffix.lower() in SUFFIXES["engine"]:
        return Checkpoint(kind="engine")
    tensors = _read_safetensors(path, magic)
    if tensors is not None:
        return Checkpoint(kind="safetensors", tensors=tensors)
    if magic[0] == 0x80:  # noqa: PLR2004 - the opcode PROTO, with which pickles begin
        with path.open("rb") as file:
            return _of_pickle(read_legacy(file))
    graph = read_graph(path)
    if graph is None:
        raise ValueError(
            "is nothing that torch, safetensors or ONNX writes; give a state_dict, TorchScript, "
            "a .pt2, .onnx or .safetensors file"
        )
    return Checkpoint(kind="onnx", inputs=graph.inputs, companions=graph.companions)


def _read_zip(path: Path) -> Checkpoint:
    try:
        with zipfile.ZipFile(path) as archive:
            return _of_members(archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"is a broken zip file: {error}") from error
    except OSError as error:
        if error.errno != errno.EINVAL:  # a member that begins before the file does
            raise
        raise ValueError("is a broken zip file: its directory points outside it") from error


def _of_members(archive: zipfile.ZipFile) -> Checkpoint:
    names = archive.namelist()
    inner = {name.partition("/")[2] for name in names}
    if "constants.pkl" in inner:
        code = [name for name in names if "/code/" in name and name.endswith(".py")]
        is_engine = any(b"torch.classes.tensorrt" in archive.read(name) for name in code)
        return Checkpoint(kind="tensorrt" if is_engine else "torchscript")
    if any("/aotinductor/" in name for name in names):
        return Checkpoint(kind="aoti")
    if any("archive_format" in name or "serialized_exported_program" in name for name in names):
        return Checkpoint(kind="exported")
    record = next((name for name in names if name.partition("/")[2] == "data.pkl"), None)
    if record is None:
        raise ValueError("is a zip file that torch did not write")
    if archive.getinfo(record).file_size > LARGEST_RECORD:
        raise ValueError("has more to unpickle than a state_dict would")
    with archive.open(record) as file:
        return _of_pickle(read_pickle(file))


def _of_pickle(found: Pickled) -> Checkpoint:
    if found.module is not None:
        raise ValueError(
            f"is a whole pickled {found.module}: it loads only beside the very code that saved it, "
            "and loading it may run anything; there, save `model.state_dict()` and give that with "
            "--model-file"
        )
    if found.strangers:
        raise ValueError(
            f"holds {', '.join(found.strangers[:3])} beside its tensors, which torch.load refuses "
            "with weights_only=True; save `model.state_dict()` alone"
        )
    if not found.tensors:
        raise ValueError("holds no tensors; save `model.state_dict()`")
    return Checkpoint(kind="state_dict", tensors=found.tensors)


def _read_safetensors(path: Path, magic: bytes) -> tuple[Tensor, ...] | None:
    """Return the tensors that a safetensors header lists; None if there is no such header."""
    length = int.from_bytes(magic[:8], "little")
    if magic[8:9] != b"{" or not 0 < length <= min(LARGEST_HEADER, path.stat().st_size - 8):
        return None
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        header = json.loads(text)
        listed = {name: entry for name, entry in header.items() if name != "__metadata__"}
        tensors = [
            Tensor(name, str(entry["dtype"]).lower(), tuple(map(int, entry["shape"])))
            for name, entry in listed.items()
        ]
        end = max((entry["data_offsets"][1] for entry in listed.values()), default=0)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    if path.stat().st_size - 8 - length < end:
        raise ValueError("is a safetensors file that was cut off")
    return tuple(tensors)
