"""Checkpoints that torch itself wrote, told apart without torch."""

from __future__ import annotations

import argparse
import pickle
import struct
import zipfile
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from hatch_mar.model.factory import STATE_DICT_KEYS as FACTORY_KEYS
from hatch_mar.project.founding.checkpoint import Checkpoint, read_checkpoint
from hatch_mar.project.founding.colours import make_weights
from hatch_mar.project.founding.pickled import STATE_DICT_KEYS, Tensor

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STATE = {"weight": torch.ones(1, 2), "bias": torch.zeros(1, dtype=torch.float16)}
TENSORS = (Tensor("weight", "float", (1, 2)), Tensor("bias", "half", (1,)))


class Net(torch.nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def saved(path: Path, value: Any, **options: Any) -> Path:
    torch.save(value, path, **options)
    return path


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("key", [None, *STATE_DICT_KEYS])
def test_a_state_dict_wherever_it_is(tmp_path: Path, key: str | None, modern: bool) -> None:
    value = STATE if key is None else {"epoch": 3, key: STATE, "shape": torch.Size([1])}
    path = saved(tmp_path / "x.pt", value, _use_new_zipfile_serialization=modern)
    assert read_checkpoint(path) == Checkpoint(kind="state_dict", tensors=TENSORS)


def test_the_handler_looks_for_it_in_the_same_places() -> None:
    assert STATE_DICT_KEYS == FACTORY_KEYS


def test_parameters_are_tensors(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", dict(Net().named_parameters()))
    assert [each.shape for each in read_checkpoint(path).tensors] == [(1, 2), (1,)]


def test_torchscript(tmp_path: Path) -> None:
    with pytest.warns(DeprecationWarning, match="jit"):
        torch.jit.script(Net()).save(str(tmp_path / "x.pth"))
    assert read_checkpoint(tmp_path / "x.pth").kind == "torchscript"


def test_an_exported_program(tmp_path: Path) -> None:
    program = torch.export.export(Net(), (torch.ones(1, 2),))
    torch.export.save(program, tmp_path / "x.pt2")
    assert read_checkpoint(tmp_path / "x.pt2").kind == "exported"


def test_a_compiled_package(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt2", "w") as archive:
        archive.writestr("x/archive_format", "pt2")
        archive.writestr("x/data/aotinductor/model/code.so", "")
    assert read_checkpoint(tmp_path / "x.pt2").kind == "aoti"


def test_safetensors(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "x.bin", metadata={"format": "pt"})
    found = read_checkpoint(tmp_path / "x.bin")
    assert found.kind == "safetensors"
    assert set(found.tensors) == {Tensor("weight", "f32", (1, 2)), Tensor("bias", "f16", (1,))}


def test_our_own_safetensors_are_read_by_the_library(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(make_weights())
    state = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "nearness.weight": (12, 3),
        "nearness.bias": (12,),
    }


def save_onnx(path: Path, *, external: bool = False) -> Path:
    weight = helper.make_tensor(
        "w", TensorProto.FLOAT, [2, 1], struct.pack("<2f", 1.0, 10.0), raw=True
    )
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2]),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    options: dict[str, Any] = {"location": "x.data", "size_threshold": 0}
    onnx.save(model, path, save_as_external_data=external, **(options if external else {}))
    return path


def test_an_onnx_graph_and_what_it_is_fed(tmp_path: Path) -> None:
    found = read_checkpoint(save_onnx(tmp_path / "x.bin"))
    assert found == Checkpoint(kind="onnx", inputs=(Tensor("x", "float32", (0, 2)),))


def test_an_onnx_model_in_two_files(tmp_path: Path) -> None:
    found = read_checkpoint(save_onnx(tmp_path / "x.onnx", external=True))
    assert found.companions == ("x.data",)


def explain(path: Path) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at
        read_checkpoint(path)
    return str(caught.value)


@pytest.mark.parametrize("modern", [True, False])
def test_a_whole_pickled_model_is_explained(tmp_path: Path, modern: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save(Net(), path, _use_new_zipfile_serialization=modern)
    said = explain(path)
    assert said.startswith(f"is a whole pickled {Net.__module__}.Net: ")
    assert "save `model.state_dict()`" in said


def test_what_torch_would_refuse_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", {"state_dict": STATE, "args": argparse.Namespace(a=1)})
    assert explain(path).startswith("holds argparse.Namespace beside its tensors")


def test_reading_a_pickle_runs_nothing_of_it(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
            return eval, (f"open({str(marker)!r}, 'w').close()",)

    path = saved(tmp_path / "x.pt", {"state_dict": STATE, "bomb": Bomb()})
    assert "eval beside its tensors" in explain(path)
    assert not marker.exists()


def truncated_safetensors() -> bytes:
    return make_weights()[:-4]


OTHERS = {
    b"": "is empty",
    b"version https://git-lfs.github.com/spec/v1\noid": "is a Git LFS pointer; run `git lfs pull`",
    b"PK\x03\x04 and no more": "is a broken zip file",
    b"\x89HDF\r\n\x1a\n": "is an HDF5 file",
    b"GGUF\x03\x00": "is a GGUF file",
    b"\x1f\x8b\x08\x00": "is compressed with gzip",
    b"hello, this is no model": "is nothing that torch, safetensors or ONNX writes",
    b"\x08": "is nothing that torch, safetensors or ONNX writes",
    pickle.dumps({"a": 1}): "is a pickle that torch.save did not write",
    b"\x80\x04": "is a broken pickle",
    make_weights()[:-4]: "is a safetensors file that was cut off",
    struct.pack("<Q", 5) + b"{" * 5: "is nothing that torch",
}


@pytest.mark.parametrize("content", OTHERS, ids=lambda content: repr(content[:12]))
def test_whatever_else_is_explained(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    assert explain(path).startswith(OTHERS[content])


def test_a_zip_of_somebody_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("config.json", "{}")
    assert explain(tmp_path / "x.pt") == "is a zip file that torch did not write"


def test_an_optimizers_state_is_no_model(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.pt", torch.optim.SGD(Net().parameters()).state_dict())
    assert explain(path) == "holds no tensors; save `model.state_dict()`"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("samples")
    legacy = saved(folder / "a", STATE, _use_new_zipfile_serialization=False)
    modern = saved(folder / "b", STATE)
    return [each.read_bytes() for each in (legacy, modern, save_onnx(folder / "c"))]


@given(data=st.data())
def test_damage_is_a_message_and_never_a_crash(
    data: st.DataObject, samples: list[bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(data.draw(st.sampled_from(samples)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged"
    path.write_bytes(content)
    with suppress(ValueError):
        read_checkpoint(path)


def test_a_zip_file_whose_directory_points_before_its_beginning(
    samples: list[bytes], tmp_path: Path
) -> None:
    content = bytearray(samples[1])
    end = content.rindex(b"PK\6\6")  # the zip64 end of central directory
    struct.pack_into("<Q", content, end + 48, 2 * len(content))
    path = tmp_path / "damaged.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is a broken zip file: its directory points outside it"):
        read_checkpoint(path)
