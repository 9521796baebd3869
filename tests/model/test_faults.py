"""Whose fault an exception is: what libraries really say, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from hatch_mar.model.faults import Fault, PredictionException, answer_fault, classify

TORCH = """\
CUDA error: {}
Search for `cudaError' in https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html \
for more information.
CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace \
below might be incorrect.
For debugging consider passing CUDA_LAUNCH_BLOCKING=1
"""
ONNX = (
    "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:"
    "121 onnxruntime::CudaCall CUDA failure {} ; GPU=0 ; hostname=vm ; expr=cudaStreamSynchronize"
)
ARENA = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv "
    "node. Name:'c' Status Message: /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 "
    "void* onnxruntime::BFCArena::AllocateRawInternal(size_t, bool) "
)
CONTEXT_WORDS = [
    "device-side assert triggered",
    "an illegal memory access was encountered",
    "an illegal instruction was encountered",
    "misaligned address",
    "unspecified launch failure",
    "the launch timed out and was terminated",
    "uncorrectable ECC error encountered",
    "hardware stack error",
    "invalid program counter",
    "operation not supported on global/shared address space",
    "context is destroyed",
]


@pytest.mark.parametrize("words", CONTEXT_WORDS)
@pytest.mark.parametrize("library", [TORCH, ONNX])
def test_the_context_is_poisoned(library: str, words: str) -> None:
    assert classify(RuntimeError(library.format(words))) is Fault.CONTEXT


@pytest.mark.parametrize(
    "text",
    [
        "No CUDA GPUs are available",
        TORCH.format("no CUDA-capable device is detected"),
        TORCH.format("CUDA-capable device(s) is/are busy or unavailable"),
        TORCH.format("unknown error"),
        ONNX.format("999: unknown error"),
        "Unable to determine the device handle for GPU0000:01:00.0: GPU is lost.",
        "CUDA unknown error - this may be due to an incorrectly set up environment",
    ],
)
def test_the_device_is_gone(text: str) -> None:
    assert classify(RuntimeError(text)) is Fault.DEVICE


@pytest.mark.parametrize(
    "text",
    [
        "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 1.00 GiB",
        TORCH.format("out of memory"),
        ONNX.format("2: out of memory"),
        ARENA + "Failed to allocate memory for requested buffer of size 8388608000",
        ARENA + "Available memory of 1024 is smaller than requested bytes of 2048",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_the_device_has_no_room(text: str) -> None:
    error = RuntimeError(text)
    assert classify(error) is Fault.MEMORY
    assert (answer_fault(error).status, bytes(answer_fault(error).body)) == (
        507,
        b"Out of resources",
    )


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 400 bytes. Error code 12 (Cannot allocate memory)"
        ),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_the_machine_has_no_room(error: BaseException) -> None:
    assert classify(error) is Fault.HOST_MEMORY


@pytest.mark.parametrize(
    "error",
    [
        ValueError("cannot identify image file"),
        ValueError("'CUDA error: device-side assert triggered' is no text that we translate"),
        RuntimeError("we are out of memory cards"),
        RuntimeError("Torch not compiled with CUDA enabled"),
        RuntimeError(TORCH.format("invalid device ordinal")),
        RuntimeError(TORCH.format("invalid argument")),
        PredictionException("CUDA out of memory", 413),
        type("Mute", (Exception,), {"__str__": lambda _: 1 / 0})(),
    ],
)
def test_everything_else_is_the_items(error: BaseException) -> None:
    assert classify(error) is Fault.ITEM


def test_what_it_was_raised_from_counts() -> None:
    inner = RuntimeError(TORCH.format("an illegal memory access was encountered"))
    error = ValueError("inference failed")
    error.__cause__ = inner
    assert classify(error) is Fault.CONTEXT
    refusal = PredictionException("try again", 429)
    refusal.__context__ = inner
    assert classify(refusal) is Fault.CONTEXT
    assert answer_fault(refusal).status == 429
    refusal.__suppress_context__ = True
    assert classify(refusal) is Fault.ITEM


def test_causes_that_go_round_end() -> None:
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert classify(one) is Fault.ITEM


@pytest.mark.parametrize(
    ("code", "fault"),
    [(710, Fault.CONTEXT), (700, Fault.CONTEXT), (2, Fault.MEMORY), (100, Fault.DEVICE), (1, 0)],
)
def test_torchs_types_speak_for_themselves(code: int, fault: Fault) -> None:
    torch: Any = pytest.importorskip("torch")
    error = torch.AcceleratorError("whatever it says")
    error.error_code = code
    assert classify(error) is Fault(fault)
    assert classify(torch.OutOfMemoryError("whatever it says")) is Fault.MEMORY


def test_only_what_cannot_go_on_spoils_the_process() -> None:
    assert [fault for fault in Fault if fault.spoils_process] == [Fault.CONTEXT, Fault.DEVICE]
    assert [fault for fault in Fault if fault.wants_room] == [Fault.HOST_MEMORY, Fault.MEMORY]
