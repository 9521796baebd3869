"""The manifest and the seal."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.manifest import Manifest
from hatch_mar.archive.seal import Digest, Example, Packing, Seal
from hatch_mar.errors import ArchiveError
from hatch_mar.weights.reference import Reference

SHA256 = "ab" * 32

digests = st.builds(
    Digest,
    st.text("0123456789abcdef", min_size=64, max_size=64),
    st.integers(0, 1 << 60),
    executable=st.booleans(),
)
references = st.builds(
    Reference,
    target=st.text(min_size=1),
    source=st.text(),
    sha256=st.just(SHA256),
    size=st.none() | st.integers(0),
    mirrors=st.lists(st.text(), max_size=2).map(tuple),
)
examples = st.builds(
    Example,
    input=st.text(),
    output=st.text(),
    content_type=st.text(),
    rtol=st.floats(0, 1),
    atol=st.floats(0, 1),
    policy=st.sampled_from(["fail", "warn"]),
)
seals = st.builds(
    Seal,
    name=st.text(),
    version=st.text(),
    runtime=st.text(),
    members=st.dictionaries(st.text(), digests, max_size=3),
    references=st.lists(references, max_size=2).map(tuple),
    examples=st.lists(examples, max_size=2).map(tuple),
    trusted_pickle=st.lists(st.text(), max_size=2).map(tuple),
    platform=st.dictionaries(st.text(), st.text(), max_size=2),
    packing=st.builds(
        Packing,
        format=st.sampled_from(["mar", "tgz", "dir"]),
        compression=st.sampled_from(["stored", "deflated"]),
        filename=st.text("abc-", max_size=5),
    ),
)


@given(seals)
def test_a_seal_survives_its_file(seal: Seal) -> None:
    assert Seal.from_json(seal.to_json()) == seal
    assert Seal.from_json(seal.to_json()).to_json() == seal.to_json()


REFERENCE = Reference(target="w", source="file:///w", sha256=SHA256).as_dict()
EXAMPLE = Example(input="a", output="a", content_type="text/plain").as_dict()


def _seal_json(**changes: Any) -> bytes:
    seal = Seal(name="m", version="1", runtime="custom", members={"a": Digest(SHA256, 1)})
    return json.dumps({**json.loads(seal.to_json()), **changes}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 100_000,
        _seal_json(members={"a": {"sha256": "xyz", "size": 1}}),
        _seal_json(members={"a": {"sha256": SHA256.upper(), "size": 1}}),
        _seal_json(members={"a": {"sha256": SHA256, "size": -1}}),
        _seal_json(members={"a": {"sha256": SHA256, "size": "1"}}),
        _seal_json(members={"a": {"sha256": SHA256, "size": True}}),
        _seal_json(members=[]),
        _seal_json(references=[{}]),
        _seal_json(references={}),
        _seal_json(references=[{**REFERENCE, "sha256": 3}]),
        _seal_json(references=[{**REFERENCE, "source": 3}]),
        _seal_json(references=[{**REFERENCE, "size": "3"}]),
        _seal_json(references=[{**REFERENCE, "mirrors": "abc"}]),
        _seal_json(references=[{**REFERENCE, "mirrors": [None]}]),
        _seal_json(examples=[{**EXAMPLE, "input": 3}]),
        _seal_json(examples=[{**EXAMPLE, "policy": "ignore"}]),
        _seal_json(examples=[{**EXAMPLE, "rtol": float("inf")}]),
        _seal_json(examples=[{**EXAMPLE, "atol": -1}]),
        _seal_json(trustedPickle="w.pt"),
        _seal_json(platform={"os": 3}),
        _seal_json(name=3),
        _seal_json(name="\ud800"),
        _seal_json(references=[{**REFERENCE, "source": "\ud800"}]),
        _seal_json(archive={"format": "mar", "compression": "stored", "filename": ".."}),
        _seal_json(archive={"format": "mar", "compression": "stored", "filename": "\ud800"}),
        _seal_json(archive={"format": "rar", "compression": "stored", "filename": ""}),
        _seal_json(archive={"format": "mar", "compression": "bzip2", "filename": ""}),
        _seal_json(archive={"format": "mar", "compression": "stored", "filename": "../x"}),
    ],
)
def test_what_is_no_seal_says_so(data: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"^MAR-INF/SEAL\.json: not a seal"):
        Seal.from_json(data)


def test_what_is_no_seal_is_not_quoted() -> None:
    source = "https://user:secret@example.org/\ud800"
    with pytest.raises(ArchiveError) as caught:
        Seal.from_json(_seal_json(references=[{**REFERENCE, "source": source}]))
    assert "secret" not in str(caught.value)


def test_a_seal_of_the_future_is_refused() -> None:
    with pytest.raises(ArchiveError, match=r"schema 2: this hatch-mar reads schema 1; upgrade"):
        Seal.from_json(_seal_json(schema=2))


def test_the_manifest_is_torch_model_archivers() -> None:
    manifest = Manifest(model_name="m", model_version="1.0", handler="h.py", serialized_file="w.pt")
    assert manifest.to_json().decode() == (
        "{\n"
        '  "createdOn": "02/02/2020 00:00:00",\n'
        '  "runtime": "python",\n'
        '  "model": {\n'
        '    "modelName": "m",\n'
        '    "serializedFile": "w.pt",\n'
        '    "handler": "h.py",\n'
        '    "modelVersion": "1.0"\n'
        "  },\n"
        '  "archiverVersion": "0.12.0"\n'
        "}"
    )
    assert Manifest.from_dict(json.loads(manifest.to_json())) == manifest


def test_an_old_manifest_is_understood() -> None:
    raw = {
        "specificationVersion": "1.0",
        "implementationVersion": "1.0",
        "license": "Apache 2.0",
        "modelServerVersion": "1.0",
        "engine": {"engineName": "pytorch"},
        "model": {"modelName": "old", "handler": "h", "modelVersion": 2, "sourceVocab": "v.pt"},
    }
    manifest = Manifest.from_dict(raw)
    assert (manifest.model_name, manifest.model_version) == ("old", "2")


def test_a_manifest_without_a_name_gets_one() -> None:
    assert Manifest.from_dict({}, fallback_name="file").model_name == "file"


@pytest.mark.parametrize(
    ("raw", "key"),
    [({"model": []}, "model"), ({"model": {"handler": 5}}, "model.handler")],
)
def test_a_broken_manifest_names_the_key(raw: dict[str, Any], key: str) -> None:
    with pytest.raises(ArchiveError, match=rf"^MAR-INF/MANIFEST\.json: {key}: must be"):
        Manifest.from_dict(raw)
