"""Lists of requests for TorchServe and for us, and what TorchServe answered to them.

`tests/contract/requests/<scene>.toml` says what is served and what is asked, in this order:

    load = ["echo-1.0.mar"]          # --models; by default all of the store
    tokens = true                    # requests need keys; by default they need none
    one-address = true               # management is where inference is

    [properties]                     # config.properties, for both
    ts_open_inference_protocol = "true"

    [files]                          # what else is in the store
    "text.mar" = "no archive"

    [models.echo]                    # an archive of tests/projects/contract/echo
    name = "echo"                    # by default the table's
    project = "echo"                 # by default the model's name
    handler = "def handle..."        # instead of a project
    version = "1.0"
    runtime = "LSP"                  # of the manifest; by default python
    config = "batchSize: 2"          # model-config.yaml; by default the project's own, if any
    file = "echo-1.0.mar"            # by default so, of name and version

    [[requests]]
    id = "v1-predict"                # never changed, and unique in all files: differences go by it
    door = "inference"               # or management, metrics
    method = "POST"
    path = "/v1/models/echo:predict"
    headers = [["Content-Type", "application/json"]]
    body = "{}"                      # or body-hex, body-size (so many x), chunks = ["{", "}"]
    patience = 60                    # seconds after which there is no answer
    key = "inference"                # of key_file.json: it goes into the header Authorization
    first-key = "inference"          # the same, as it was when the server started
    settled = true                   # wait until every worker is READY before

    [[requests]]
    id = "grpc-predict"
    rpc = "inference.InferenceAPIsService/Predictions"    # the port goes by the service
    values = {model_name = "echo", input = {data = "x"}}  # or each = [...], where a client streams
    metadata = [["x-one", "1"]]

Both servers are started as the program `torchserve`, with the same files.
`tests/contract/recorded/<scene>.json` holds TorchServe's replies by id, field by field: what
differs from one start to the next (a worker's pid, for instance) is replaced by its type. A field
that is meant to differ is named in `tests/contract/differences.toml`.
"""

from __future__ import annotations

import contextlib
import json
import re
import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive
from tests.support.exchange import Call, Reply, exchange
from tests.support.rpc import RpcCall, call
from tests.support.torchserve import TorchServeHome, await_workers, start_torchserve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.support.torchserve import TorchServe

CONTRACT = Path(__file__).parents[1] / "contract"
PROJECTS = Path(__file__).parents[1] / "projects" / "contract"
Fields = dict[str, Any]
"""A reply as JSON: status, reason, body, and one `header <name>` for each; or code and answers."""
_OF_THE_MOMENT = re.compile(r'("(?:id|startTime|memoryUsage|pid)": )("[^"]*"|-?[0-9]+)')
"""What a description says of a worker that differs from one start to the next."""
_DESCRIPTION = '"startTime": '


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What an archive of a scene is made of."""

    name: str
    project: str
    version: str = "1.0"
    config: str = ""
    handler: str = ""
    file: str = ""
    runtime: str = "python"

    def write(self, store: Path) -> Path:
        """Write the archive, the same bytes for both servers."""
        directory = PROJECTS / self.project
        files = {path.name: path.read_bytes() for path in sorted(directory.glob("*.*"))}
        if self.handler:
            files = {"handler.py": self.handler.encode()}
        if self.config:
            files["model-config.yaml"] = self.config.encode()
        manifest = Manifest(
            model_name=self.name,
            model_version=self.version,
            handler="handler.py",
            runtime=self.runtime,
            config_file="model-config.yaml" if "model-config.yaml" in files else None,
        )
        plan = Plan(
            name=self.name,
            version=self.version,
            manifest=manifest,
            members=tuple(Member(name, data) for name, data in files.items()),
            runtime="custom",
        )
        path = store / (self.file or f"{self.name}-{self.version}.mar")
        write_archive(plan, path)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a scene."""

    id: str
    door: str
    call: Call | RpcCall
    patience: float
    key: str = ""
    first_key: str = ""
    settled: bool = False

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a `[[requests]]` table."""
        raw = dict(raw)
        asked = cls(
            id=raw.pop("id"),
            door=raw.pop("door", "inference"),
            patience=raw.pop("patience", 60.0),
            key=raw.pop("key", ""),
            first_key=raw.pop("first-key", ""),
            settled=raw.pop("settled", False),
            call=_read_rpc(raw) if "rpc" in raw else _read_call(raw),
        )
        assert not raw, f"{asked.id}: unknown keys {sorted(raw)}"
        return asked

    def ask(self, server: TorchServe, first_keys: Mapping[str, str]) -> Fields:
        """Send it, and return what came back as JSON can say it."""
        if self.settled:
            await_workers(server)
        value = first_keys[self.first_key] if self.first_key else ""
        value = server.keys()[self.key] if self.key else value
        key = [("Authorization", f"Bearer {value}")] if value else []
        if isinstance(self.call, Call):
            sent = replace(self.call, headers=[*self.call.headers, *key])
            return ask(server.door(self.door), sent, patience=self.patience)
        metadata = [*self.call.metadata, *((name.lower(), text) for name, text in key)]
        place = server.rpc_place(self.call.service.partition(".")[0])
        return _lasting(call(place, replace(self.call, metadata=metadata), patience=self.patience))


def _read_call(raw: dict[str, Any]) -> Call:
    body: bytes | None = None
    if "body" in raw:
        body = raw.pop("body").encode()
    elif "body-hex" in raw:
        body = bytes.fromhex(raw.pop("body-hex"))
    elif "body-size" in raw:
        body = b"x" * raw.pop("body-size")
    return Call(
        method=raw.pop("method", "POST"),
        path=raw.pop("path"),
        headers=[(name, value) for name, value in raw.pop("headers", [])],
        body=body,
        chunks=[chunk.encode() for chunk in raw.pop("chunks", [])],
    )


def _read_rpc(raw: dict[str, Any]) -> RpcCall:
    service, _, method = raw.pop("rpc").partition("/")
    values = raw.pop("values", {})
    return RpcCall(
        service=service,
        method=method,
        each=raw.pop("each", [values]),
        metadata=[(name, value) for name, value in raw.pop("metadata", [])],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One file: what is served, and what is asked."""

    name: str
    models: Sequence[Model]
    requests: Sequence[Asked]
    properties: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    load: Sequence[str] = ("all",)
    tokens: bool = False
    one_address: bool = False

    def recorded(self) -> dict[str, Fields]:
        """Return TorchServe's replies, by the ids of the requests."""
        replies: dict[str, Fields] = json.loads(self.record.read_text(encoding="utf-8"))
        return replies

    @property
    def record(self) -> Path:
        """The file of TorchServe's replies."""
        return CONTRACT / "recorded" / f"{self.name}.json"

    def play(self, home: TorchServeHome | None, store: Path) -> dict[str, Fields]:
        """Serve the models, ask everything, in order, and return the replies by id.

        Without `home`, the real TorchServe's, it is ours that is asked.
        """
        for model in self.models:
            model.write(store)
        for name, text in self.files.items():
            (store / name).write_text(text, encoding="utf-8")
        with start_torchserve(
            home,
            store,
            models=self.load,
            settings=self.properties,
            tokens=self.tokens,
            one_address=self.one_address,
            workers=self.properties.get("default_workers_per_model") != "0",
        ) as server:
            keys = server.keys() if self.tokens else {}
            return {asked.id: asked.ask(server, keys) for asked in self.requests}


def ask(url: str, call: Call, *, patience: float) -> Fields:
    """Return what came back as JSON can say it; `{"status": 0}` if nothing did."""
    try:
        reply = exchange(url, call, patience=patience)
    except TimeoutError:
        return {"status": 0}
    return as_fields(reply)


def as_fields(reply: Reply) -> Fields:
    """Return a reply as JSON has it: the body as text where it is UTF-8, else in hexadecimal."""
    fields = reply.comparable()
    try:
        fields["body"] = reply.body.decode()
    except UnicodeDecodeError:
        fields["body"] = {"hex": reply.body.hex()}
    return _lasting(dict(sorted(fields.items())))


def _lasting(fields: Fields) -> Fields:
    """Replace what a description says of the moment by its type."""
    if "answers" in fields:
        answers = [
            {name: _lasting_text(value) for name, value in answer.items()}
            for answer in fields["answers"]
        ]
        return {**fields, "answers": answers}
    body = _lasting_text(fields["body"])
    if body != fields["body"]:
        fields.pop("header content-length", None)
    return {**fields, "body": body}


def _lasting_text(text: Any) -> Any:
    if not isinstance(text, str) or _DESCRIPTION not in text:
        return text
    return _OF_THE_MOMENT.sub(
        lambda found: found[1] + ('"text"' if found[2].startswith('"') else "0"), text
    )


@cache
def scenes() -> dict[str, Scene]:
    """Return every scene, by its name."""
    found = {path.stem: read_scene(path) for path in sorted((CONTRACT / "requests").glob("*.toml"))}
    ids = [asked.id for scene in found.values() for asked in scene.requests]
    twice = {ident for ident in ids if ids.count(ident) > 1}
    assert not twice, f"ids of several requests: {sorted(twice)}"
    return found


def read_scene(path: Path) -> Scene:
    """Read one file."""
    raw = tomllib.loads(path.read_text(encoding="utf-8"))
    models = [
        Model(**{"name": name, "project": table.get("name", name), **table})
        for name, table in raw["models"].items()
    ]
    return Scene(
        name=path.stem,
        models=models,
        requests=[Asked.from_dict(table) for table in raw["requests"]],
        properties=raw.get("properties", {}),
        files=raw.get("files", {}),
        load=raw.get("load", ("all",)),
        tokens=raw.get("tokens", False),
        one_address=raw.get("one-address", False),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Meant:
    """One deliberate difference: a row of the table in how-to/migrate-from-torchserve.md."""

    what: str
    why: str
    fields: Mapping[str, Sequence[str]]
    """The fields that differ, by the id of the request."""


@cache
def differences() -> tuple[Meant, ...]:
    """Return what `differences.toml` says."""
    raw = tomllib.loads((CONTRACT / "differences.toml").read_text(encoding="utf-8"))
    return tuple(Meant(**table) for table in raw["differences"])


def fields_that_may_differ(ident: str) -> set[str]:
    """Return the fields of a request's reply that are meant to be different."""
    found = {name for meant in differences() for name in meant.fields.get(ident, ())}
    if "body" in found:
        found |= {"header content-length"}
    return found


def write_record(scene: Scene, replies: Mapping[str, Fields]) -> None:
    """Keep TorchServe's replies."""
    with contextlib.suppress(FileExistsError):
        scene.record.parent.mkdir()
    text = json.dumps(replies, indent=1, ensure_ascii=False, sort_keys=False)
    scene.record.write_text(text + "\n", encoding="utf-8")
