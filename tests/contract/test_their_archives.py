"""What torch-model-archiver 0.12 made loads here: every format, every way to name a handler.

And what older and odder archives hold: manifests with keys that nobody knows, two of them, none.
"""

from __future__ import annotations

import asyncio
import json
import warnings
import zipfile
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hatch_mar.archive.read import open_archive
from hatch_mar.errors import ArchiveError
from hatch_mar.serve import Part, Request, Service, ServiceSettings
from hatch_mar.serve.rundir import make_root, prepare, remove_rundirs
from hatch_mar.weights.cache import Cache
from tests.support.exchange import Call, exchange
from tests.support.runner import start_runner
from tests.support.torchserve import start_torchserve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

FORMATS = ("default", "zip-store", "tgz", "no-archive")
JSON = "application/json"
HANDLERS = {
    "file": "class/handler.py",
    "stem": "class/handler",
    "function": "function/handler:answer",
    "absolute-file": "{cwd}/class/handler.py",
    "absolute-function": "{cwd}/function/handler:answer",
    "dotted": "./function/../class/handler.py",
}
"""Ways to name one's own handler, from the directory of the matrix's projects."""
LINE = {"weight": [[1.0, 0.5, -2.0], [0.25, 0.0, 4.0]], "bias": [0.125, -1.0]}
ROW = [2.0, -3.0, 0.5]
SCORES = [-0.375, 1.5]
"""What `LINE` makes of `ROW`."""
OLD_MANIFEST = {
    "createdOn": "12/06/2019 14:03:00",
    "specificationVersion": "1.0",
    "implementationVersion": "1.0",
    "modelServerVersion": "0.1",
    "description": "made long ago",
    "license": "Apache 2.0",
    "userData": {"team": "ours"},
    "engine": {"engineName": "PyTorch", "engineVersion": "1.2"},
    "publisher": {"author": "somebody", "email": "somebody@example.com"},
    "model": {
        "modelName": "old",
        "modelVersion": "0.9",
        "description": "a line",
        "handler": "handler:answer",
        "serializedFile": "line.json",
        "signature": {"inputs": []},
    },
}


CONSTANT = f"""
def answer(data, context):
    assert context.manifest is None
    return data and [{SCORES} for row in data]
"""
ODD = ("old", "twice")
NAMES = tuple(f"{kind}-{form}" for kind in HANDLERS for form in FORMATS)
ASKED_THERE = tuple(
    f"{kind}-{[*FORMATS][turn % len(FORMATS)]}" for turn, kind in enumerate(HANDLERS)
)
"""Each way to name a handler in one of the formats, in turn: TorchServe knows its own archives."""
BASES = tuple(f"base-{form}" for form in FORMATS)
"""Served by the default handler, which TorchServe's own does only behind a service envelope."""


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome, handlers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Make every archive; return the directory they are in."""
    root = tmp_path_factory.mktemp("theirs")
    line, script, extra, store = (root / each for each in ("line.json", "line.pt", "extra", "s"))
    line.write_text(json.dumps(LINE))
    save_script(script)
    (extra / "MAR-INF").mkdir(parents=True)
    wrong = {"model": {"modelName": "wrong", "handler": "wrong"}}
    (extra / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(wrong))
    store.mkdir()
    cwd = handlers.parent / "matrix"

    def command(name: str, handler: str, weights: Path, form: str, *more: str) -> list[str]:
        given = ["--model-name", name, "--version", "1.0", "--handler", handler.format(cwd=cwd)]
        given += ["--serialized-file", str(weights), "--export-path", str(store)]
        return [*given, "--archive-format", form, *more]

    commands = [
        command(name, HANDLERS[kind], line, form)
        for name, (kind, form) in zip(NAMES, product(HANDLERS, FORMATS), strict=True)
    ]
    commands += [
        command(name, "base_handler", script, form)
        for name, form in zip(BASES, FORMATS, strict=True)
    ]
    commands.append(
        command("twice", HANDLERS["function"], line, "default", "--extra-files", str(extra))
    )
    torchserve_home.make_archives(commands, cwd)
    members = {"handler.py": (cwd / "function" / "handler.py").read_text()}
    members["line.json"] = json.dumps(LINE)
    write_zip(store / "none.mar", {"handler.py": CONSTANT})
    write_zip(store / "old.mar", {**members, "MAR-INF/MANIFEST.json": json.dumps(OLD_MANIFEST)})
    return store


def save_script(path: Path) -> None:
    """Save `LINE` as TorchScript."""
    layer = torch.nn.Linear(3, 2)
    layer.load_state_dict({name: torch.tensor(values) for name, values in LINE.items()})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself, since torch 2.9
        torch.jit.script(layer).save(str(path))


def write_zip(path: Path, members: dict[str, str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def path_of(name: str, store: Path) -> Path:
    """Return the archive `name`, whatever its format."""
    return next(path for path in store.iterdir() if path.name.split(".")[0] == name)


@pytest.fixture(scope="module")
def urls(torchserve_home: TorchServeHome, store: Path) -> Iterator[tuple[str, str]]:
    """Serve all of them with ours, and with TorchServe what it is asked about."""
    models = [path_of(name, store).name for name in (*ASKED_THERE, *ODD, "none")]
    settings = {"default_service_handler": "handler:answer"}  # for the one that names none
    archives = (str(path_of(name, store)) for name in (*NAMES, *BASES, *ODD))
    with ExitStack() as stack:
        ours = stack.enter_context(start_runner(*archives))
        assert ours.exited() is None, ours.output()
        theirs = stack.enter_context(
            start_torchserve(torchserve_home, store, models=models, settings=settings)
        )
        yield theirs.url, ours.url


def ask(url: str, model: str) -> list[float]:
    headers = [("Content-Type", JSON)]
    call = Call(path=f"/predictions/{model}", headers=headers, body=json.dumps(ROW).encode())
    reply = exchange(url, call)
    assert reply.status == 200, reply
    scores: list[float] = reply.json()
    return scores


@pytest.mark.parametrize("name", [*NAMES, *BASES, *ODD])
def test_it_answers_here(urls: tuple[str, str], name: str) -> None:
    assert ask(urls[1], name) == SCORES


@pytest.mark.parametrize("name", [*ASKED_THERE, *ODD, "none"])
def test_so_it_does_there(urls: tuple[str, str], name: str) -> None:
    assert ask(urls[0], name) == SCORES


def test_without_a_manifest_it_is_served_by_the_handler_that_one_names(
    store: Path, tmp_path: Path
) -> None:
    """TorchServe is told with `default_service_handler`, ours by whoever registers the model."""

    async def serve() -> Any:
        with open_archive(path_of("none", store)) as archive:
            assert archive.warnings == ["MAR-INF/MANIFEST.json is missing"]
            cache = Cache(tmp_path / "cache")
            deployment = prepare(archive, root=root, cache=cache, handler="handler:answer")
        service = Service(settings=ServiceSettings())
        try:
            await service.register(deployment)
            part = Part(name="body", data=json.dumps(ROW).encode(), content_type=JSON)
            request = Request(id="1", headers=(), parts=(part,))
            response = await service.predict("none", None, request)
            return json.loads(bytes(response.body))
        finally:
            await service.close()

    root = make_root(tmp_path)
    try:
        assert asyncio.run(serve()) == SCORES
    finally:
        remove_rundirs(root)


def test_without_a_manifest_and_a_handler_there_is_nothing_to_serve(
    store: Path, tmp_path: Path
) -> None:
    with (
        open_archive(path_of("none", store)) as archive,
        pytest.raises(ArchiveError, match="no manifest that names a handler"),
    ):
        prepare(archive, root=tmp_path, cache=Cache(tmp_path / "cache"))
