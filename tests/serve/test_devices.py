"""GPUs are chosen and handed out by plain rules; a fake list of them shows it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.errors import ModelError
from hatch_mar.serve import Deployment, ServiceSettings
from hatch_mar.serve.devices.discovery import (
    Device,
    discover,
    list_devices,
    measure,
    select,
)
from hatch_mar.serve.devices.placement import STRIKES, Group, Placement
from hatch_mar.serve.launch import count_workers, make_environ, make_options, uses_gpu
from hatch_mar.serve.metrics.machine import Machine

GPUS = [Device(index=index, uuid=f"GPU-{index}aa", memory=1000) for index in range(3)]
SLICES = [
    Device(index=0, uuid="GPU-0aa"),
    Device(index=1, uuid="MIG-1a"),
    Device(index=1, uuid="MIG-1b"),
]
Maker = Callable[..., Deployment]


class TestVisible:
    @pytest.mark.parametrize(
        ("visible", "indices"),
        [
            (None, [0, 1, 2]),
            ("", []),
            ("-1", []),
            ("NoDevFiles", []),
            ("1", [1]),
            ("2,0", [2, 0]),
            (" 2 , 0 ", [2, 0]),
            ("0,7,1", [0]),
            ("0,-1,1", [0]),
            ("GPU-1", [1]),
            ("GPU-2aa,0", [2, 0]),
            ("GPU-", []),
            ("GPU-9", []),
            ("1,1", []),
        ],
    )
    def test_as_cuda_reads_it(self, visible: str | None, indices: list[int]) -> None:
        assert [device.index for device in select(GPUS, visible)] == indices

    def test_slices_have_names(self) -> None:
        assert select(SLICES, "MIG-1b,GPU-0") == [SLICES[2], SLICES[0]]

    def test_the_index_of_a_split_gpu_is_its_first_slice(self) -> None:
        assert select(SLICES, "1") == [SLICES[1]]


class TestPlacement:
    def place(self, placement: Placement, count: int, ids: list[int] | None = None) -> list[int]:
        groups = placement.place("m", count, device_ids=ids, memory=None)
        return [device.index for (device,) in groups]

    def test_round_robin_over_all_models(self) -> None:
        placement = Placement(GPUS)
        assert [self.place(placement, 2), self.place(placement, 2)] == [[0, 1], [2, 0]]

    def test_device_ids(self) -> None:
        placement = Placement(GPUS)
        assert self.place(placement, 3, [2, 1]) == [2, 1, 2]
        assert self.place(placement, 1) == [0]

    def test_a_list_with_an_unknown_id_is_ignored(self, caplog: pytest.LogCaptureFixture) -> None:
        assert self.place(Placement(GPUS), 2, [1, 7]) == [0, 1]
        assert "there is no GPU 7" in caplog.text

    def test_ids_are_physical(self) -> None:
        assert self.place(Placement(select(GPUS, "2,1")), 2, [1]) == [1, 1]

    def test_memory_that_does_not_fit(self) -> None:
        placement = Placement(GPUS[:1])
        placement.place("a", 1, device_ids=None, memory=400)
        with pytest.raises(ModelError) as caught:
            placement.place("b", 2, device_ids=None, memory=400)
        assert str(caught.value).startswith(
            "b: model-config.yaml: system.maxGPUMemory: 400 MB for each of 2 workers do not fit "
            "gpu:0 (1000 MB, of which 400 MB are promised to other workers); "
        )

    def test_refused_memory_is_not_taken(self) -> None:
        placement = Placement(GPUS[:1])
        with pytest.raises(ModelError):
            placement.place("a", 2, device_ids=None, memory=800)
        assert placement.place("b", 1, device_ids=None, memory=800) == [(GPUS[0],)]

    def test_released_memory_is_there_again(self) -> None:
        placement = Placement(GPUS[:1])
        (group,) = placement.place("a", 1, device_ids=None, memory=800)
        placement.release(group, 800)
        assert placement.place("b", 1, device_ids=None, memory=800) == [group]


class TestRoom:
    """Where memory is promised, a GPU without room loses its turn."""

    def place(self, placement: Placement, memory: int, width: int = 1) -> list[int]:
        (group,) = placement.place("m", 1, device_ids=None, memory=memory, width=width)
        return [device.index for device in group]

    def test_turns_are_kept_while_there_is_room(self) -> None:
        placement = Placement(GPUS)
        assert [self.place(placement, 300) for _ in range(4)] == [[0], [1], [2], [0]]

    def test_the_emptiest_is_next_where_the_turn_has_no_room(self) -> None:
        placement = Placement(GPUS)
        assert [self.place(placement, size) for size in (900, 600, 500)] == [[0], [1], [2]]
        assert self.place(placement, 450) == [2]

    def test_a_worker_of_several_is_reserved_for_on_each(self) -> None:
        placement = Placement(GPUS)
        assert self.place(placement, 700, width=2) == [0, 1]
        assert self.place(placement, 700) == [2]
        with pytest.raises(ModelError, match="of which 700 MB are promised to other workers"):
            self.place(placement, 400)

    def test_several_have_room_on_each_or_are_elsewhere(self) -> None:
        placement = Placement(GPUS)
        placement.place("other", 1, device_ids=[1], memory=900)
        assert self.place(placement, 500, width=2) == [2, 0]

    def test_what_others_take_is_no_room(self) -> None:
        free = [100.0, 800.0, 500.0]
        placement = Placement(GPUS, free=lambda device: free[device.index])
        assert self.place(placement, 600) == [1]
        with pytest.raises(ModelError) as caught:
            self.place(placement, 600)
        assert (
            "gpu:1 (1000 MB, of which 600 MB are promised to other workers and 200 MB taken by "
            "other programs; 800 MB are free now); lower it"
        ) in str(caught.value)

    def test_what_ours_have_not_taken_yet_is_no_room_either(self) -> None:
        free = [700.0]
        placement = Placement(GPUS[:1], free=lambda _: free[0])
        assert self.place(placement, 400) == [0]  # loads still: NVML sees nothing of it
        with pytest.raises(ModelError):
            self.place(placement, 400)
        free[0] = 300.0
        assert self.place(placement, 300) == [0]

    def test_what_others_have_given_back_is_room(self) -> None:
        free = [200.0]
        placement = Placement(GPUS[:1], free=lambda _: free[0])
        self.place(placement, 100)
        free[0] = 900.0
        assert self.place(placement, 800) == [0]

    def test_memory_that_nobody_can_tell_is_not_refused(self) -> None:
        placement = Placement([Device(index=0, uuid="GPU-thor")], free=lambda _: 0.0)
        assert self.place(placement, 10_000) == [0]


ORDERS = st.lists(
    st.tuples(
        st.sampled_from(["place", "release"]),
        st.integers(1, 3),  # workers
        st.integers(1, 3),  # devices of each
        st.integers(1, 700),  # MB
    ),
    max_size=30,
)


@given(ORDERS)
def test_nothing_is_promised_twice_and_what_is_released_is_there_again(
    orders: list[tuple[str, int, int, int]],
) -> None:
    placement = Placement(GPUS)
    held: list[tuple[Group, int]] = []
    for what, count, width, memory in orders:
        if what == "release":
            if held:
                placement.release(*held.pop())
            continue
        with suppress(ModelError):
            groups = placement.place("m", count, device_ids=None, memory=memory, width=width)
            held += [(group, memory) for group in groups]
            assert all(len(set(group)) == width for group in groups)
        for device in GPUS:
            promised = sum(memory for group, memory in held if device in group)
            assert promised <= device.memory
    for group, memory in held:
        placement.release(group, memory)
    assert len(placement.place("m", 3, device_ids=None, memory=1000)) == 3


class TestLoss:
    def place(self, placement: Placement, ids: list[int] | None = None) -> list[int]:
        groups = placement.place("m", 3, device_ids=ids, memory=None)
        return [device.index for (device,) in groups]

    def test_a_lost_device_is_nobodys(self, caplog: pytest.LogCaptureFixture) -> None:
        placement = Placement(GPUS)
        placement.lose(GPUS[1], "NVML: GPU is lost")
        assert self.place(placement) == [0, 2, 0]
        assert self.place(placement, [1, 2]) == [2, 2, 2]
        assert "gpu:1 (GPU-1aa) is lost: NVML: GPU is lost" in caplog.text

    def test_where_no_other_may_be_used_the_reason_is_told(self) -> None:
        placement = Placement(GPUS)
        placement.lose(GPUS[1], "NVML: GPU is lost")
        with pytest.raises(ModelError) as caught:
            self.place(placement, [1])
        assert str(caught.value) == (
            "m: gpu:1 is lost (NVML: GPU is lost); there is no other GPU that it may use"
        )

    def test_one_that_is_back_is_used(self) -> None:
        placement = Placement(GPUS)
        placement.lose(GPUS[0], "for a while")
        placement.regain(GPUS[0])
        assert self.place(placement) == [0, 1, 2]

    def test_workers_that_cannot_begin_one_after_the_other_show_it(self) -> None:
        told: list[Device] = []
        placement = Placement(GPUS)
        placement.on_lost = told.append
        for _ in range(STRIKES - 1):
            placement.strike((GPUS[0],), "no CUDA-capable device is detected")
        placement.acquit((GPUS[0],))
        for _ in range(STRIKES):
            assert not placement.lost
            placement.strike((GPUS[0],), "no CUDA-capable device is detected")
        assert told == [GPUS[0]]
        assert placement.lost == {
            "GPU-0aa": "3 workers in a row could not begin on it: "
            "no CUDA-capable device is detected"
        }

    def test_of_several_devices_none_is_blamed(self) -> None:
        placement = Placement(GPUS)
        for _ in range(STRIKES):
            placement.strike((GPUS[0], GPUS[1]), "no CUDA-capable device is detected")
        assert not placement.lost


class TestLaunch:
    def configured(self, maker: Maker, **config: object) -> Deployment:
        return replace(maker(), config=read_model_config(config))

    @pytest.mark.parametrize(
        ("kind", "setting", "gpus", "expected"),
        [
            (None, "auto", GPUS, True),
            (None, "auto", [], False),
            ("cpu", "auto", GPUS, False),
            ("gpu", "auto", GPUS, True),
            ("gpu", "auto", [], False),
            ("gpu", "cpu", GPUS, False),
            ("cpu", "gpu", GPUS, True),
        ],
    )
    def test_device_type(
        self,
        make_deployment: Maker,
        kind: str | None,
        setting: str,
        gpus: list[Device],
        expected: bool,
    ) -> None:
        deployment = self.configured(make_deployment, **({"deviceType": kind} if kind else {}))
        settings = ServiceSettings(device=setting)  # type: ignore[arg-type]
        assert uses_gpu(deployment, settings, Placement(gpus)) is expected

    def test_a_gpu_that_the_operator_named_must_be_there(self, make_deployment: Maker) -> None:
        deployment = self.configured(make_deployment, deviceIds=[1, 7])
        with pytest.raises(ModelError, match=r"^m: there is no GPU 7; visible: 0, 1, 2$"):
            uses_gpu(deployment, ServiceSettings(device="gpu"), Placement(GPUS))
        assert uses_gpu(deployment, ServiceSettings(), Placement(GPUS))

    @pytest.mark.parametrize(
        ("config", "workers", "gpus", "expected"),
        [
            ({}, None, 0, 1),
            ({}, None, 3, 3),
            ({}, 2, 3, 2),
            ({"minWorkers": 4, "maxWorkers": 5}, None, 3, 4),
            ({"minWorkers": 4, "maxWorkers": 5}, 1, 3, 1),
            ({"minWorkers": 4}, None, 0, 1),
            ({"parallelType": "pp"}, None, 3, 1),
        ],
    )
    def test_how_many(
        self,
        make_deployment: Maker,
        config: dict[str, int],
        workers: int | None,
        gpus: int,
        expected: int,
    ) -> None:
        deployment = self.configured(make_deployment, **config)
        assert count_workers(deployment, ServiceSettings(workers=workers), gpus) == expected

    def test_a_worker_sees_its_own_device(self, make_deployment: Maker) -> None:
        settings = ServiceSettings(environ={"CUDA_VISIBLE_DEVICES": "2,1", "A": "b"})
        placement = Placement(GPUS)
        environ = make_environ(make_deployment(), settings, (GPUS[1],), placement)
        assert environ == {
            "A": "b",
            "CUDA_VISIBLE_DEVICES": "GPU-1aa",
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
        options = make_options(make_deployment(name="o"), settings, gpu=True, check_examples=False)
        assert options["gpu_id"] == 0

    def test_a_worker_on_the_cpu_sees_none(self, make_deployment: Maker) -> None:
        settings = ServiceSettings(environ={})
        environ = make_environ(make_deployment(), settings, (), Placement(GPUS))
        assert environ["CUDA_VISIBLE_DEVICES"] == ""

    def test_a_worker_of_several_sees_those(self, make_deployment: Maker) -> None:
        deployment = self.configured(make_deployment, parallelType="custom", deviceIds=[0, 2])
        settings = ServiceSettings(environ={})
        environ = make_environ(deployment, settings, (GPUS[0], GPUS[2]), Placement(GPUS))
        assert environ["CUDA_VISIBLE_DEVICES"] == "GPU-0aa,GPU-2aa"

    def test_without_gpus_the_environment_stays(self, make_deployment: Maker) -> None:
        settings = ServiceSettings(environ={"A": "b"})
        assert make_environ(make_deployment(), settings, (), Placement([])) == {"A": "b"}


class Nvml:  # tests.support.fake_nvml has one whose GPUs can be lost
    """NVIDIA's library where four GPUs are not quite as usual: handles are their own names.

    1 has fallen off the bus, 2 comes before 0 on it and is split, 3 shares the machine's memory.
    """

    NVML_DEVICE_MIG_ENABLE = 1
    NVML_ERROR_GPU_IS_LOST = 15
    NVML_ERROR_NOT_FOUND = 6
    NVML_ERROR_RESET_REQUIRED = 16

    class NVMLError(Exception):
        value = 3

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the library's names, here and below
        return 4

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:  # noqa: N802
        if index == 1:
            raise self.NVMLError("GPU is lost")
        return f"GPU-{index}"

    def nvmlDeviceGetPciInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        bus = {"GPU-0": 8, "GPU-2": 4, "GPU-3": 9}[handle]
        return SimpleNamespace(domain=0, bus=bus, device=0)

    def nvmlDeviceGetMigMode(self, handle: str) -> list[int]:  # noqa: N802
        if handle == "GPU-3":
            raise self.NVMLError("Not Supported")
        return [int(handle == "GPU-2")] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, _: str) -> int:  # noqa: N802
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, _: str, slot: int) -> str:  # noqa: N802
        if slot not in {1, 4}:
            raise self.NVMLError("Not Found")
        return f"MIG-{slot}"

    def nvmlDeviceGetUUID(self, handle: str) -> str:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: str) -> str:  # noqa: N802
        return f"name of {handle}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:  # noqa: N802
        if handle == "GPU-3":
            raise self.NVMLError("Not Supported")
        return SimpleNamespace(total=1 << 30)


def test_gpus_are_numbered_along_the_bus_and_odd_ones_hide_no_others() -> None:
    found = [(device.index, device.uuid, device.memory) for device in list_devices(Nvml())]
    assert found == [(0, "MIG-1", 1024), (0, "MIG-4", 1024), (1, "GPU-0", 1024), (2, "GPU-3", 0)]


def test_devices_that_are_gone_are_not_measured() -> None:
    assert measure(Device(index=0, uuid="GPU-nowhere", memory=1000)) is None


def test_the_machine_is_measured() -> None:
    machine = Machine((("Level", "Host"), ("Hostname", "h")), list)
    families = {family.name: family.samples[0][2] for family in machine.collect()}
    assert set(families) == {
        *("CPUUtilization", "MemoryUsed", "MemoryAvailable", "MemoryUtilization"),
        *("DiskUsage", "DiskUtilization", "DiskAvailable"),
    }
    assert 0 <= families["CPUUtilization"] <= 100
    assert 0 < families["MemoryUtilization"] < 100
    assert families["DiskAvailable"] > 0


@pytest.mark.gpu
def test_real_gpus_are_found_without_a_context() -> None:
    devices = discover({})
    if not devices:
        pytest.skip("no GPU")
    assert all(device.memory > 1000 and device.uuid for device in devices)
    usage = measure(devices[0])
    assert usage is not None
    assert 0 <= usage.memory_share <= 100
    probe = (
        "from hatch_mar.serve.devices.discovery import discover; discover({}); import sys;"
        "assert 'torch' not in sys.modules;"
        "print(any('libcuda.so' in line for line in open('/proc/self/maps')))"
    )
    root = Path(__file__).parents[2]
    output = subprocess.check_output(
        [sys.executable, "-c", probe], env={**os.environ, "PYTHONPATH": str(root)}, text=True
    )
    assert output == "False\n"
