"""Whose fault an exception is: what libraries really say, word for word."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.model.devices import DeviceMonitor
from hatch_mar.model.faults import (
    Fault,
    PredictionException,
    answer_fault,
    classify,
    diagnose,
    let_go,
)
from hatch_mar.model.protocol import MemoryUse

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 1 << 20

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


class FakeCuda:
    """`torch.cuda` of a process that uses it."""

    def __init__(self, answer: str = "") -> None:
        self.answer = answer
        self.emptied = 0

    def is_initialized(self) -> bool:
        return True

    def synchronize(self) -> None:
        if self.answer:
            raise RuntimeError(self.answer)

    def empty_cache(self) -> None:
        self.emptied += 1

    def memory_stats(self, device: int) -> dict[str, int]:
        assert device == 0
        return {"allocated_bytes.all.peak": 100 * MIB + 1, "reserved_bytes.all.peak": 120 * MIB}

    def get_device_properties(self, _: int) -> Any:
        return SimpleNamespace(total_memory=1024 * MIB)


class TestDiagnosis:
    """PyTorch is in use: the device is asked."""

    @pytest.fixture
    def use(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCuda], FakeCuda]:
        def install(cuda: FakeCuda) -> FakeCuda:
            # As an old one, which has no types for these errors.
            monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
            return cuda

        return install

    def test_words_are_believed_only_if_the_device_says_so(
        self, use: Callable[[FakeCuda], FakeCuda]
    ) -> None:
        error = RuntimeError(TORCH.format("device-side assert triggered"))
        use(FakeCuda())
        assert diagnose(error) is Fault.ITEM
        use(FakeCuda(TORCH.format("device-side assert triggered")))
        assert diagnose(error) is Fault.CONTEXT

    def test_what_words_do_not_tell_the_device_does(
        self, use: Callable[[FakeCuda], FakeCuda]
    ) -> None:
        use(FakeCuda(TORCH.format("an illegal memory access was encountered")))
        assert diagnose(RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")) is Fault.CONTEXT
        assert diagnose(RuntimeError("not its business")) is Fault.ITEM

    def test_a_device_that_goes_meanwhile_is_gone(
        self, use: Callable[[FakeCuda], FakeCuda]
    ) -> None:
        use(FakeCuda(TORCH.format("unknown error")))
        assert diagnose(RuntimeError(TORCH.format("unspecified launch failure"))) is Fault.DEVICE

    def test_too_little_memory_does_no_harm(self, use: Callable[[FakeCuda], FakeCuda]) -> None:
        use(FakeCuda())
        assert diagnose(RuntimeError("CUDA out of memory.")) is Fault.MEMORY

    def test_the_batchs_tensors_go_before_the_cache_is_emptied(
        self, use: Callable[[FakeCuda], FakeCuda]
    ) -> None:
        cuda = use(FakeCuda())
        with pytest.raises(ZeroDivisionError) as caught:
            _ = 1 / 0
        error = caught.value
        let_go(error)
        assert error.__traceback__ is None
        assert cuda.emptied == 1

    def test_memory_is_told_in_whole_megabytes(self, use: Callable[[FakeCuda], FakeCuda]) -> None:
        use(FakeCuda())
        assert DeviceMonitor(0).measure() == MemoryUse(allocated=101, reserved=120, total=1024)
        assert DeviceMonitor(None).measure() is None
