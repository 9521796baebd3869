"""Every way to ship a model, in every format, in the real TorchServe and here: the same answers.

The everyday run has each way in one of the formats, all formats taking turns; the slow run has all
of them. What TorchServe cannot serve is asked of our runner alone.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hatch_mar.archive.write import write_archive
from hatch_mar.project.matrix import WAYS, Way
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from hatch_mar.project.stock import ENVELOPE, NO_ONNX, UNTRAINED
from hatch_mar.weights.digest import hash_file
from hatch_mar.weights.lockfile import LOCK_NAME, Lock, LockedFile, render_lock
from tests.support.exchange import Call, exchange, is_close
from tests.support.models import linear_as_onnx
from tests.support.runner import start_runner
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatch_mar.project.spec import MarSpec
    from tests.support.torchserve import TorchServe, TorchServeHome

FORMATS = {
    "default": ("mar", "deflated"),
    "zip-store": ("mar", "stored"),
    "tgz": ("tgz", "stored"),
    "no-archive": ("dir", "stored"),
}
"""torch-model-archiver's names, and `archive.format` and `archive.compression` for the same."""
WEIGHTS = {
    "eager": "state.pt",
    "torchscript": "script.pt",
    "onnx": "graph.onnx",
    "onnx-inference": "graph.onnx",
    "class": "line.json",
    "function": "line.json",
    "default": "script.pt",
    "factory": "state.pt",
}
HANDLERS = {"function": "handler.py:answer", "default": "base_handler"}
PROJECTS = Path(__file__).parents[1] / "projects" / "matrix"
ROWS = ([0.5, -1.0, 2.25], [-100.5, 1e-6, 42.125])
DENIED = tuple(way for way in WAYS if way.obstacles or way.setting)
"""What TorchServe does not serve as it comes."""
SERVED = next(way for way in WAYS if way not in DENIED)
PYPROJECT = """\
[project]
name = "{name}"
version = "1.0"
dependencies = ["hatch-mar[serve]"]

[tool.mar]
handler = "{handler}"
{weights}

[tool.mar.archive]
format = "{format}"
compression = "{compression}"
"""


@dataclass(frozen=True, slots=True)
class Shipment:
    """The weights of every kind of model, and what the model answers."""

    directory: Path
    expected: Sequence[list[float]]


@pytest.fixture(scope="session")
def shipment(tmp_path_factory: pytest.TempPathFactory) -> Shipment:
    directory = tmp_path_factory.mktemp("weights")
    torch.manual_seed(7)
    network = torch.nn.Sequential()
    network.add_module("out", torch.nn.Linear(3, 2))
    torch.save(network.state_dict(), directory / "state.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself, since torch 2.9
        torch.jit.script(network).save(str(directory / "script.pt"))
    (directory / "graph.onnx").write_bytes(linear_as_onnx(network.out))
    line = {"weight": network.out.weight.tolist(), "bias": network.out.bias.tolist()}
    (directory / "line.json").write_text(json.dumps(line))
    with torch.inference_mode():
        return Shipment(directory, [network(torch.tensor([row]))[0].tolist() for row in ROWS])


def name_of(way: Way) -> str:
    return f"{way.model}-{way.weights}"


def make_project(way: Way, form: str, weights: Path, root: Path) -> MarSpec:
    """Write the project of `way` into `root`, and read it as a build does."""
    source = PROJECTS / way.model
    if source.is_dir():
        shutil.copytree(source, root)
    else:
        root.mkdir()
    lines = ['model-file = "model.py"'] if way.model == "eager" else []
    if way.weights == "inside":
        shutil.copy(weights, root)
        lines.append(f'weights = "{weights.name}"')
    elif way.weights == "path":
        config = {"handler": {"model_path": str(weights)}}
        (root / "model-config.yaml").write_text(json.dumps(config))
        (root / LOCK_NAME).write_text(render_lock(Lock(files=(lock(weights),))))
    else:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        lines.append(f'weights = {{ source = "{weights.as_uri()}", sha256 = "{digest}" }}')
    archive_format, compression = FORMATS[form]
    text = PYPROJECT.format(
        name=name_of(way),
        handler=HANDLERS.get(way.model, "handler.py"),
        weights="\n".join(lines),
        format=archive_format,
        compression=compression,
    )
    (root / "pyproject.toml").write_text(text)
    return read_spec(root, environ={})


def lock(path: Path) -> LockedFile:
    digest, size = hash_file(path)
    return LockedFile(
        target=path.name, source=str(path), resolved=str(path), size=size, sha256=digest
    )


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_a_project_is_told_what_its_row_says(way: Way, shipment: Shipment, tmp_path: Path) -> None:
    spec = make_project(
        way, "default", shipment.directory / WEIGHTS[way.model], tmp_path / "project"
    )
    said = [*way.obstacles, *([way.setting] if way.setting else [])]
    assert sorted(note.partition(": ")[2] for note in spec.stock) == sorted(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Servers:
    """One shelf of archives, served by ours, and by theirs where it can."""

    ours: str
    theirs: str
    unpacking: str
    """TorchServe with `service_envelope=body`; empty in the everyday run."""

    def their_url(self, way: Way) -> str:
        """Return the TorchServe that has the model; empty where there is none."""
        if way.obstacles:
            return ""
        return self.unpacking if way.setting else self.theirs


def form_of(way: Way, shelf: str) -> str:
    """Return the format of `way`: the shelf's own, or on the everyday shelf its turn."""
    return [*FORMATS][WAYS.index(way) % len(FORMATS)] if shelf == "everyday" else shelf


@pytest.fixture(
    scope="module",
    params=["everyday", *(pytest.param(form, marks=pytest.mark.slow) for form in FORMATS)],
)
def servers(
    request: pytest.FixtureRequest,
    shipment: Shipment,
    torchserve_home: TorchServeHome,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Servers]:
    """Serve every way to ship a model, in the formats of one shelf."""
    root = tmp_path_factory.mktemp(request.param)
    store = root / "store"
    store.mkdir()
    shelves: dict[tuple[bool, bool], list[str]] = {}
    for way in WAYS:
        weights = shipment.directory / WEIGHTS[way.model]
        spec = make_project(way, form_of(way, request.param), weights, root / name_of(way))
        plan = make_plan(spec)
        write_archive(plan, store / plan.filename)
        shelves.setdefault((bool(way.obstacles), bool(way.setting)), []).append(plan.filename)
    environ = {"HATCH_MAR_CACHE_DIR": str(root / "cache")}
    archives = map(str, sorted(store.iterdir()))
    with ExitStack() as stack:
        ours = stack.enter_context(start_runner(*archives, env=environ))
        assert ours.exited() is None, ours.output()
        theirs = stack.enter_context(
            start_torchserve(torchserve_home, store, models=shelves[False, False])
        )
        unpacking = ""
        if request.param != "everyday":
            settings = {"service_envelope": "body"}
            models = shelves[False, True]
            unpacking = stack.enter_context(
                start_torchserve(torchserve_home, store, models=models, settings=settings)
            ).url
        yield Servers(ours=ours.url, theirs=theirs.url, unpacking=unpacking)


@pytest.mark.parametrize("way", WAYS, ids=name_of)
def test_the_same_answers(servers: Servers, shipment: Shipment, way: Way) -> None:
    for row, expected in zip(ROWS, shipment.expected, strict=True):
        call = ask(way, row)
        ours = exchange(servers.ours, call)
        assert ours.status == 200, ours
        assert is_close(ours.json(), expected, tolerance=1e-4)
        url = servers.their_url(way)
        if url:
            theirs = exchange(url, call)
            assert theirs.status == 200, theirs
            assert is_close(ours.json(), theirs.json())


def ask(way: Way, row: list[float]) -> Call:
    headers = [("Content-Type", "application/json")]
    path = f"/predictions/{name_of(way)}"
    return Call(path=path, headers=headers, body=json.dumps(row).encode())


@pytest.fixture(scope="module")
def registry(
    shipment: Shipment, torchserve_home: TorchServeHome, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TorchServe]:
    """Start a TorchServe that serves one model, and has all that the table denies it in store."""
    root = tmp_path_factory.mktemp("denied")
    store = root / "store"
    store.mkdir()
    for way in (SERVED, *DENIED):
        weights = shipment.directory / WEIGHTS[way.model]
        plan = make_plan(make_project(way, "zip-store", weights, root / name_of(way)))
        write_archive(plan, store / f"{name_of(way)}.mar")
    models = [f"{name_of(SERVED)}.mar"]
    settings = {"enable_model_api": "true"}
    with start_torchserve(torchserve_home, store, models=models, settings=settings) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("way", DENIED, ids=name_of)
def test_theirs_cannot(registry: TorchServe, shipment: Shipment, way: Way) -> None:
    """What the table denies TorchServe does not load there, answers nothing, or answers wrongly."""
    wanted = f"/models?url={name_of(way)}.mar&initial_workers=1&synchronous=true"
    loaded = exchange(registry.management_url, Call(path=wanted)).status == 200
    reasons = {*way.obstacles, way.setting} - {""}
    assert loaded == (reasons <= {NO_ONNX, ENVELOPE, UNTRAINED}), "the table gives another reason"
    if loaded:
        reply = exchange(registry.url, ask(way, ROWS[0]))
        assert reply.status == (200 if UNTRAINED in reasons else 503)
        assert reply.status == 503 or not is_close(reply.json(), shipment.expected[0])
