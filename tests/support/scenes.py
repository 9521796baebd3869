"""Lists of requests for TorchServe and for us, and what TorchServe answered to them.

`tests/contract/requests/<scene>.toml` says what is served and what is asked, in this order:

    [properties]                     # config.properties, for both
    ts_open_inference_protocol = "true"

    [models.echo]                    # an archive of tests/projects/contract/echo
    project = "echo"                 # by default the model's name
    version = "1.0"
    config = "batchSize: 2"          # model-config.yaml; by default the project's own, if any

    [[requests]]
    id = "v1-predict"                # never changed, and unique in all files: differences go by it
    door = "inference"               # or management, metrics
    method = "POST"
    path = "/v1/models/echo:predict"
    headers = [["Content-Type", "application/json"]]
    body = "{}"                      # or body-hex, body-size (so many x), chunks = ["{", "}"]
    patience = 60                    # seconds after which there is no answer

Both servers are started as the program `torchserve`, with the same files.
`tests/contract/recorded/<scene>.json` holds TorchServe's replies by id, field by field. A field
that is meant to differ is named in `tests/contract/differences.toml`.
"""

from __future__ import annotations

import contextlib
import json
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.write import write_archive
from tests.support.exchange import Call, Reply, exchange
from tests.support.torchserve import TorchServeHome, start_torchserve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CONTRACT = Path(__file__).parents[1] / "contract"
PROJECTS = Path(__file__).parents[1] / "projects" / "contract"
Fields = dict[str, Any]
"""A reply as JSON: status, reason, body, and one `header <name>` for each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What an archive of a scene is made of."""

    name: str
    project: str
    version: str = "1.0"
    config: str = ""

    def write(self, store: Path) -> Path:
        """Write the archive, the same bytes for both servers."""
        directory = PROJECTS / self.project
        files = {path.name: path.read_bytes() for path in sorted(directory.glob("*.*"))}
        if self.config:
            files["model-config.yaml"] = self.config.encode()
        manifest = Manifest(
            model_name=self.name,
            model_version=self.version,
            handler="handler.py",
            config_file="model-config.yaml" if "model-config.yaml" in files else None,
        )
        plan = Plan(
            name=self.name,
            version=self.version,
            manifest=manifest,
            members=tuple(Member(name, data) for name, data in files.items()),
            runtime="custom",
        )
        path = store / f"{self.name}-{self.version}.mar"
        write_archive(plan, path)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a scene."""

    id: str
    door: str
    call: Call
    patience: float

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Read a `[[requests]]` table."""
        raw = dict(raw)
        ident, door = raw.pop("id"), raw.pop("door", "inference")
        patience = raw.pop("patience", 60.0)
        body: bytes | None = None
        if "body" in raw:
            body = raw.pop("body").encode()
        elif "body-hex" in raw:
            body = bytes.fromhex(raw.pop("body-hex"))
        elif "body-size" in raw:
            body = b"x" * raw.pop("body-size")
        call = Call(
            method=raw.pop("method", "POST"),
            path=raw.pop("path"),
            headers=[(name, value) for name, value in raw.pop("headers", [])],
            body=body,
            chunks=[chunk.encode() for chunk in raw.pop("chunks", [])],
        )
        assert not raw, f"{ident}: unknown keys {sorted(raw)}"
        return cls(id=ident, door=door, call=call, patience=patience)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One file: what is served, and what is asked."""

    name: str
    models: Sequence[Model]
    requests: Sequence[Asked]
    properties: Mapping[str, str] = field(default_factory=dict)

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
        with start_torchserve(home, store, settings=self.properties) as server:
            doors = {
                "inference": server.url,
                "management": server.management_url,
                "metrics": server.metrics_url,
            }
            return {
                asked.id: ask(doors[asked.door], asked.call, patience=asked.patience)
                for asked in self.requests
            }


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
    return dict(sorted(fields.items()))


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
        Model(name=name, **{"project": name, **table}) for name, table in raw["models"].items()
    ]
    return Scene(
        name=path.stem,
        models=models,
        requests=[Asked.from_dict(table) for table in raw["requests"]],
        properties=raw.get("properties", {}),
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
