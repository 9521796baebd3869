"""How sources are written, and what of them may be shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.project.secret import find_secret
from hatch_mar.weights.address import HubAddress, ObjectAddress
from hatch_mar.weights.uri import SCHEMES, find_flaw, redact

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GOOD = [
    "s3://bucket/w.pt",
    "S3://bucket/w.pt",
    "s3://my.bucket-1/a b/100%/w#1.pt",
    "s3://bucket/w.pt?versionId=3HL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY-MTRCxf3vjVBH40Nr8X8gdRQBpUMLUo",
    "gs://bucket/w.pt",
    "gs://bucket/w.pt#1360887697105000",
    "gs://bucket/w#v2.pt",
    "az://container/dir/w.pt",
    "az://$root/w.pt",
    "az://container@account/w.pt",
    "az://container@account.blob.core.windows.net/w.pt",
    "az://container@account.dfs.core.usgovcloudapi.net/w.pt",
    "az://container/w.pt?versionid=2024-05-01T10:11:12.1234567Z",
    "hf://org/repo/w.pt",
    "hf://org/repo@main/dir/w.pt",
    "hf://org/repo@v1.0/w@2.pt",
    "hf://org/repo/w@2.pt",
    f"hf://org/repo@{COMMIT}/w.pt",
    "hf://org/repo@refs/pr/12/w.pt",
    "hf://org/repo@refs%2Fpr%2F12/w.pt",
    "hf://models/org/repo/w.pt",
    "hf://datasets/org/repo@refs/convert/parquet/w.pt",
    "hf://spaces/org/repo/w.pt",
    "hf://gpt2@main/model.safetensors",
    "ftp://whatever it is",
]
"""Sources that may be."""

BAD = [
    ("s3:bucket/w.pt", "write s3://"),
    ("s3://", "write s3://BUCKET/KEY"),
    ("s3://bucket", "write s3://BUCKET/KEY"),
    ("s3://bucket/", "write s3://BUCKET/KEY"),
    ("s3://bucket/dir/", "write s3://BUCKET/KEY"),
    ("s3:///w.pt", "write s3://BUCKET/KEY"),
    ("s3://user:hunter2@bucket/w.pt", "write s3://BUCKET/KEY"),
    ("s3://bucket/w.pt?versionId=", "no version that could be"),
    ("s3://bucket/w.pt?X-Amz-Expires=1", "asks for more than an object"),
    ("s3://bucket/w.pt\n", "characters that no address has"),
    ("gs://Bucket/w.pt", "write gs://BUCKET/OBJECT"),
    ("gs://bucket/w.pt?generation=12", "#GENERATION for one generation"),
    ("az://c/w.pt", "write az://CONTAINER/BLOB"),
    ("az://con--tainer/w.pt", "write az://CONTAINER/BLOB"),
    ("az://container@ACCOUNT/w.pt", "write az://CONTAINER/BLOB"),
    ("az://container@evil.example/w.pt", "write az://CONTAINER/BLOB"),
    ("az://container/w.pt?sv=2024&sig=x", "asks for more than an object"),
    ("hf://org/repo", "write hf://ORG/REPO@REVISION/FILE"),
    ("hf://repo/", "write hf://ORG/REPO@REVISION/FILE"),
    ("hf://org/repo@/w.pt", "write hf://ORG/REPO@REVISION/FILE"),
    ("hf://org/repo@main", "write hf://ORG/REPO@REVISION/FILE"),
    ("hf://org/repo@main/", "write hf://ORG/REPO@REVISION/FILE"),
    ("hf://org/repo@main/../w.pt", "write hf://ORG/REPO@REVISION/FILE"),
    ("hf://org/re--po@main/w.pt", "write hf://ORG/REPO@REVISION/FILE"),
    ("hf://org/repo@main/w.pt?download=true", "write hf://ORG/REPO@REVISION/FILE"),
]


@pytest.mark.parametrize("source", GOOD)
def test_a_source_that_may_be(source: str) -> None:
    assert find_flaw(source) is None
    assert find_secret(source) is None
    assert redact(source).lower() == source.lower()


@pytest.mark.parametrize(("source", "message"), BAD)
def test_a_source_that_cannot_be_is_shown_how(source: str, message: str) -> None:
    flaw = find_flaw(source)
    assert flaw is not None
    assert message in flaw
    assert "hunter2" not in flaw


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("s3://key:hunter2@bucket/w.pt", "s3://bucket/w.pt"),
        ("s3://bucket/w.pt?X-Amz-Signature=hunter2", "s3://bucket/w.pt"),
        ("s3://bucket/w.pt?versionId=1&X-Amz-Signature=hunter2", "s3://bucket/w.pt"),
        ("az://c:hunter2@account/w.pt", "az://account/w.pt"),
        ("az://container/w.pt?sig=hunter2", "az://container/w.pt"),
        ("hf://user:hunter2@org/repo/w.pt", "hf://org/repo/w.pt"),
        ("hf://hf_hunter2hunter2hunter2@org/repo/w.pt", "hf://org/repo/w.pt"),
    ],
)
def test_what_may_be_a_secret_is_not_shown(source: str, shown: str) -> None:
    assert redact(source) == shown


def test_a_token_of_the_hub_is_a_secret() -> None:
    assert find_secret("hf://hf_hunter2hunter2hunter2@org/repo/w.pt") == "a token of the Hub"


@pytest.mark.parametrize(
    "source",
    [source for source in GOOD if source.startswith(("s3:", "gs:", "az:"))],
)
def test_an_object_is_written_as_it_was_read(source: str) -> None:
    assert str(ObjectAddress.parse(source)) == source


def test_a_file_of_the_hub_is_written_in_one_form() -> None:
    for source in ("hf://org/r/a/w.pt", "hf://models/org/r/a/w.pt", "hf://org/r@main/a/w.pt"):
        assert str(HubAddress.parse(source)) == "hf://org/r@main/a/w.pt"
    moved = HubAddress.parse("hf://datasets/org/r@refs/pr/1/w.pt")
    assert (moved.revision, moved.path) == ("refs/pr/1", "w.pt")
    assert str(moved) == "hf://datasets/org/r@refs%2Fpr%2F1/w.pt"
    assert not moved.is_immutable
    assert moved.at(COMMIT).is_immutable


names = st.from_regex(r"[a-z0-9]{3,20}", fullmatch=True)
keys = st.from_regex(r"[a-zA-Z0-9 %_.#@-]{1,10}(/[a-zA-Z0-9 %_.@-]{1,10}){0,3}", fullmatch=True)


@given(st.sampled_from(("s3", "gs", "az")), names, keys, st.none() | st.integers(1, 10**17))
def test_any_object_survives(scheme: str, container: str, key: str, version: int | None) -> None:
    address = ObjectAddress(
        scheme=scheme,
        container=container,
        key=key,
        version=None if version is None else str(version),
    )
    if scheme != "gs" or version is not None or not key.rpartition("#")[2].isdigit():
        assert ObjectAddress.parse(str(address)) == address


@given(st.text())
def test_no_text_is_too_odd(text: str) -> None:
    for source in (text, *(f"{scheme}://{text}" for scheme in SCHEMES)):
        assert find_flaw(source) != ""
        redact(source)
