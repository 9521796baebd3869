"""What batches were measured to cost is found again: for this model, on such a device."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.modelconfig import read_model_config
from hatch_mar.serve.batching.costs import Cost
from hatch_mar.serve.deployment import Deployment
from hatch_mar.serve.devices.discovery import Device
from hatch_mar.serve.devices.placement import Placement
from hatch_mar.serve.settings import ServiceSettings
from hatch_mar.serve.tuning import (
    Sweep,
    Tuning,
    add_tuning,
    describe_device,
    digest_model,
    find_cost,
    load_tunings,
    place_beside,
    read_tunings,
)

if TYPE_CHECKING:
    from pathlib import Path

COST = Cost(fixed=0.002, per_item=0.0005)
GPU = Device(index=0, uuid="GPU-1", name="NVIDIA H100", memory=80_000)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    (made / "weights.pt").write_bytes(bytes(100))
    return made


def make_deployment(directory: Path, **config: Any) -> Deployment:
    return Deployment(
        name="m",
        version="1.0",
        directory=directory,
        handler="handler.py",
        config=read_model_config(config),
    )


def make_tuning(deployment: Deployment, device: Device | None = None) -> Tuning:
    return Tuning(model=digest_model(deployment), device=describe_device(device), cost=COST)


def cost_on(deployment: Deployment, *devices: Device) -> Cost | None:
    return find_cost(deployment, ServiceSettings(), Placement(devices))


amounts = st.floats(0, 1e6)


@given(
    st.lists(st.tuples(st.text(), amounts, amounts, st.integers(1, 512)), unique_by=lambda t: t[0])
)
def test_what_was_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, entries: list[tuple[str, float, float, int]]
) -> None:
    path = tmp_path_factory.mktemp("tunings") / "tuning.json"
    tunings = [
        Tuning(
            model=model,
            device={"name": model},
            cost=Cost(fixed=fixed, per_item=per_item),
            batches=(Sweep(size=size, count=3, seconds=fixed),),
        )
        for model, fixed, per_item, size in entries
    ]
    for tuning in tunings:
        add_tuning(path, tuning)
    assert read_tunings(path) == tunings


def test_a_later_measurement_takes_the_place_of_an_earlier(directory: Path) -> None:
    deployment, path = make_deployment(directory), directory.parent / "tuning.json"
    for device in (None, GPU, None):
        add_tuning(path, make_tuning(deployment, device))
    assert [each.device["name"] for each in read_tunings(path)] == [
        GPU.name,
        describe_device(None)["name"],
    ]


ENTRY = '{"model": "m", "device": {}, "fixed": 0, "perItem": 0, "batches": []}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"schema": 9, "tunings": []}',
        '{"schema": 1, "tunings": [{"model": "m"}]}',
        *(
            f'{{"schema": 1, "tunings": [{entry}]}}'
            for entry in (
                ENTRY.replace('"fixed": 0', '"fixed": -1'),
                ENTRY.replace('"fixed": 0', '"fixed": NaN'),
                ENTRY.replace("{}", "3"),
                ENTRY.replace("[]", '[{"size": 1}]'),
            )
        ),
    ],
)
def test_what_holds_no_tunings_is_passed_over(
    tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tuning.json"
    path.write_text(text)
    assert read_tunings(path) == []
    assert "it holds no tunings" in caplog.text


def test_no_file_is_no_fault(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert read_tunings(tmp_path / "tuning.json") == []
    assert not caplog.text


def test_a_file_that_cannot_be_written_stays_as_it_was(directory: Path) -> None:
    path = directory.parent / "none" / "tuning.json"
    with pytest.raises(OSError, match="none"):
        add_tuning(path, make_tuning(make_deployment(directory)))
    assert not path.parent.exists()


def test_it_is_found_beside_an_archive(directory: Path) -> None:
    deployment, archive = make_deployment(directory), directory.parent / "m.mar"
    add_tuning(place_beside(archive), make_tuning(deployment))
    assert (directory.parent / "m.mar.tuning.json").is_file()
    assert cost_on(load_tunings(deployment, archive)) == COST


def test_it_is_found_in_an_archive(directory: Path) -> None:
    deployment = make_deployment(directory)
    add_tuning(directory / "tuning.json", make_tuning(deployment))
    assert cost_on(load_tunings(deployment, directory.parent / "m.mar")) == COST


def test_it_is_told_from_what_another_device_took(directory: Path) -> None:
    deployment, archive = make_deployment(directory), directory.parent / "m.mar"
    add_tuning(place_beside(archive), make_tuning(deployment, GPU))
    tuned = load_tunings(deployment, archive)
    assert cost_on(tuned) is None
    assert cost_on(tuned, GPU) == COST


@pytest.mark.parametrize("change", ["another size", "another file", "another precision"])
def test_it_is_told_from_what_another_model_took(directory: Path, change: str) -> None:
    archive = directory.parent / "m.mar"
    add_tuning(place_beside(archive), make_tuning(make_deployment(directory)))
    if change == "another size":
        (directory / "weights.pt").write_bytes(bytes(200))
    elif change == "another file":
        (directory / "more.py").touch()
    config = {"cuda": {"precision": "bfloat16"}} if change == "another precision" else {}
    assert cost_on(load_tunings(make_deployment(directory, **config), archive)) is None


def test_what_costs_nothing_does_not_make_it_another_model(directory: Path) -> None:
    archive = directory.parent / "m.mar"
    add_tuning(place_beside(archive), make_tuning(make_deployment(directory)))
    (directory / "weights.pt").write_bytes(bytes(range(100)))
    (directory / "__pycache__").mkdir()
    (directory / "__pycache__" / "m.pyc").touch()
    assert cost_on(load_tunings(make_deployment(directory, batchSize=8), archive)) == COST


def test_the_file_is_for_people_too(directory: Path) -> None:
    path = directory.parent / "tuning.json"
    add_tuning(path, make_tuning(make_deployment(directory)))
    entry = json.loads(path.read_text())["tunings"][0]
    assert (entry["fixed"], entry["perItem"]) == (COST.fixed, COST.per_item)
    assert path.read_text().endswith("}\n")
