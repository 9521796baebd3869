"""`s3:`, `gs:` and `az:` sources, read by the clients of each from stores on loopback."""

from __future__ import annotations

import builtins
import hashlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from hatch_mar.errors import DigestMismatchError, WeightsError
from hatch_mar.weights.fetch import Patience, fetch
from hatch_mar.weights.stores import open_source, resolve
from tests.support.stores import Azure, Google, checking_credentials, moto, serving, silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from hatch_mar.weights.cache import Cache
    from hatch_mar.weights.reference import Reference

    Refer = Callable[..., Reference]

DATA = bytes(range(256)) * 40_000
"""Ten megabytes: several pieces of any store."""
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    """The server of moto."""
    with moto() as url:
        yield url


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of an empty versioned bucket, `versioned`, and of another, `plain`."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_url,
        "AWS_ACCESS_KEY_ID": "AKIAHUNTER2",
        "AWS_SECRET_ACCESS_KEY": "hunter2hunter2",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    for bucket in ("plain", "versioned"):
        client.create_bucket(Bucket=bucket)
    versioning = {"Status": "Enabled"}
    client.put_bucket_versioning(Bucket="versioned", VersioningConfiguration=versioning)
    yield client
    client.close()


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Google]:
    """Google's store, without anybody's credentials."""
    google = Google()
    with serving(google):
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", google.url)
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
        yield google


@pytest.fixture
def azure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Azure]:
    """An account of Azure's, whose key the environment has."""
    azure = Azure()
    with serving(azure):
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azure.connection_string)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield azure


class Put:
    """Writes an object into each store in turn."""

    def __init__(self, kind: str, store: Any) -> None:
        self.kind = kind
        self.store = store

    def __call__(self, data: bytes, name: str = "dir/w 1#2.pt") -> tuple[str, str]:
        """Return the source, and the same with the version that has `data`."""
        if self.kind == "s3":
            told = self.store.put_object(Bucket="versioned", Key=name, Body=data)
            source = f"s3://versioned/{name}"
            return source, f"{source}?versionId={told['VersionId']}"
        if self.kind == "gs":
            source = f"gs://bucket/{name}"
            return source, f"{source}#{self.store.put('bucket', name, data)}"
        version = self.store.put(f"container/{name}", data)
        return f"az://container/{name}", f"az://container/{name}?versionid={version}"


@pytest.fixture(params=["s3", "gs", "az"])
def put(request: pytest.FixtureRequest) -> Put:
    """Each kind of store in turn."""
    fixtures = {"s3": "s3", "gs": "google", "az": "azure"}
    return Put(request.param, request.getfixturevalue(fixtures[request.param]))


def read(uri: str, start: int = 0, stop: int | None = None) -> bytes:
    with closing(open_source(uri, stall=10)) as source, closing(source.open(start, stop)) as stream:
        assert stream.start == start
        assert stream.total == len(DATA)
        return b"".join(iter(lambda: stream.read(1 << 20), b""))


# All three.


def test_an_object_is_fetched(put: Put, cache: Cache, refer: Refer) -> None:
    source, _ = put(DATA)
    assert fetch(refer(source, data=DATA), cache).read_bytes() == DATA


@pytest.mark.parametrize(
    ("start", "stop"), [(0, None), (9_000_000, None), (5, 9), (0, 3), (4_000_000, 9_000_000)]
)
def test_any_part_can_be_read(put: Put, start: int, stop: int | None) -> None:
    source, _ = put(DATA)
    assert read(source, start, stop) == DATA[start:stop]


def test_many_threads_read_one_source(put: Put) -> None:
    source, _ = put(DATA)
    with closing(open_source(source)) as opened, ThreadPoolExecutor(8) as pool:
        together = threading.Barrier(8)

        def read_part(index: int) -> bytes:
            together.wait()
            with closing(opened.open(index * 1_280_000, (index + 1) * 1_280_000)) as stream:
                return b"".join(iter(lambda: stream.read(100_000), b""))

        assert b"".join(pool.map(read_part, range(8))) == DATA


def test_a_source_resolves_to_a_version(put: Put) -> None:
    source, first = put(DATA)
    assert resolve(source).source == first
    assert resolve(source).size == len(DATA)
    _, second = put(DATA[:100])
    assert (resolve(source).source, resolve(source).size) == (second, 100), "nothing is cached"
    assert (resolve(first).source, resolve(first).size) == (first, len(DATA))
    assert read(first) == DATA


def test_two_states_have_two_versions(put: Put) -> None:
    versions = []
    for data in (DATA, DATA[::-1]):
        source, _ = put(data)
        with closing(open_source(source)) as opened, closing(opened.open()) as stream:
            versions.append(stream.version)
    assert None not in versions
    assert len(set(versions)) == 2


def test_behind_the_end_is_the_beginning(put: Put) -> None:
    source, _ = put(DATA)
    with closing(open_source(source)) as opened, closing(opened.open(len(DATA))) as stream:
        assert (stream.start, stream.total) == (0, len(DATA))


def test_an_empty_object(put: Put, cache: Cache, refer: Refer) -> None:
    source, _ = put(b"")
    assert resolve(source).size == 0
    assert fetch(refer(source, data=b""), cache).read_bytes() == b""


def test_other_bytes_than_were_locked(
    put: Put, cache: Cache, refer: Refer, patience: Patience
) -> None:
    source, _ = put(DATA[::-1])
    with pytest.raises(DigestMismatchError):
        fetch(refer(source, data=DATA), cache, patience=patience)


@pytest.mark.parametrize("ask", [resolve, read], ids=["resolve", "open"])
def test_what_is_missing_is_said(put: Put, ask: Callable[[str], object]) -> None:
    source, _ = put(DATA)
    with pytest.raises(FileNotFoundError, match="no such"):
        ask(source.replace("w 1", "gone"))


def test_without_its_library_an_extra_is_named(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    library = {"s3": "s3fs", "gs": "gcsfs", "az": "adlfs"}[put.kind]
    module = {"s3": "s3", "gs": "google", "az": "azure"}[put.kind]
    found = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {library!r}", name=library)
        return found(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(__import__("sys").modules, f"hatch_mar.weights.stores.{module}", False)
    expected = rf"{put.kind}:// needs {library}: pip install 'hatch-mar\[{put.kind}\]'"
    with pytest.raises(OSError, match=expected):
        resolve(put(DATA)[0])


def test_a_store_that_is_silent(put: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = put(DATA)
    with silence() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        account = f"AccountName=a;AccountKey=aHVudGVyMg==;BlobEndpoint={url}/a;"
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", account)
        with pytest.raises(TimeoutError, match="sends nothing"):
            resolve(source, stall=0.3)
        opened = open_source(source, stall=0.3)
        with pytest.raises(TimeoutError, match="sends nothing"):
            opened.open()
        opened.close()


# Amazon S3.


def test_an_object_without_versions_stays_as_it_is(s3: Any) -> None:
    s3.put_object(Bucket="plain", Key="w.pt", Body=DATA)
    assert resolve("s3://plain/w.pt").source == "s3://plain/w.pt"


def test_the_digest_that_an_uploader_left_is_told(s3: Any) -> None:
    s3.put_object(Bucket="plain", Key="w.pt", Body=DATA, ChecksumAlgorithm="SHA256")
    assert resolve("s3://plain/w.pt").sha256 == SHA256


@pytest.mark.parametrize("ask", [resolve, read], ids=["resolve", "open"])
def test_wrong_credentials_of_s3(s3: Any, s3_url: str, ask: Callable[[str], object]) -> None:
    s3.put_object(Bucket="plain", Key="w.pt", Body=DATA)
    with (
        checking_credentials(s3_url),
        pytest.raises(PermissionError, match="AWS_PROFILE") as caught,
    ):
        ask("s3://plain/w.pt")
    assert "unter2" not in str(caught.value).lower()


def test_a_bucket_for_everybody_needs_no_credentials(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="plain", Key="w.pt", Body=DATA, ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert read("s3://plain/w.pt") == DATA


def test_a_request_that_was_not_signed_says_so(
    s3: Any, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_object(Bucket="plain", Key="w.pt", Body=DATA)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with checking_credentials(s3_url), pytest.raises(PermissionError, match="was not signed"):
        resolve("s3://plain/w.pt")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://nowhere/w.pt", "there is no such bucket"),
        ("s3://plain/w.pt?versionId=none", "no such version"),
    ],
)
def test_what_of_s3_is_missing(s3: Any, uri: str, message: str) -> None:
    s3.put_object(Bucket="plain", Key="w.pt", Body=DATA)
    with pytest.raises(FileNotFoundError, match=message):
        read(uri)


def test_a_profile_that_nobody_has(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(OSError, match=r"S3 cannot be asked: .* \(nobody\)"):
        resolve("s3://plain/w.pt")


def test_an_s3_that_is_gone(s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match="S3 cannot be read"):
        resolve("s3://plain/w.pt")


# Google Cloud Storage, and Azure: stores that fail as they are told.


@pytest.fixture(params=["gs", "az"])
def failing(request: pytest.FixtureRequest) -> Put:
    """Each of the two."""
    fixtures = {"gs": "google", "az": "azure"}
    return Put(request.param, request.getfixturevalue(fixtures[request.param]))


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_told_apart(failing: Put, status: int) -> None:
    source, _ = failing(DATA)
    for ask in (resolve, read):
        failing.store.fail(status=status)
        with pytest.raises(ConnectionError, match=f"answers {status}"):
            ask(source)


@pytest.mark.parametrize("ask", [resolve, read], ids=["resolve", "open"])
def test_no_store_sends_anybody_elsewhere(failing: Put, ask: Callable[[str], object]) -> None:
    source, _ = failing(DATA)
    inside = Google()
    with serving(inside):
        failing.store.fail(9, status=302, headers={"Location": f"{inside.url}/secret"})
        with pytest.raises(OSError, match="answers 302"):
            ask(source)
    assert inside.asked == []


def test_a_broken_connection_is_taken_up(
    failing: Put, cache: Cache, refer: Refer, patience: Patience
) -> None:
    source, _ = failing(DATA)
    failing.store.fail(status=503)
    failing.store.fail(truncate=2_000_000)
    assert fetch(refer(source, data=DATA), cache, patience=patience).read_bytes() == DATA


def test_a_store_that_is_gone(failing: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = "http://127.0.0.1:9"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gone)
    variable = "AZURE_STORAGE_CONNECTION_STRING"
    monkeypatch.setenv(variable, f"AccountName=a;AccountKey=aHVudGVyMg==;BlobEndpoint={gone}/a;")
    with pytest.raises(ConnectionError, match="cannot be read"):
        resolve(failing(DATA)[0])


def test_google_is_asked_with_a_token(
    google: Google, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source, _ = Put("gs", google)(DATA)
    google.token = "hunter2"
    with pytest.raises(PermissionError, match="was not signed: set GOOGLE_APPLICATION_CREDENTIALS"):
        resolve(source)
    account = {"type": "authorized_user", "client_id": "i", "client_secret": "s"}
    (tmp_path / "account.json").write_text(json.dumps({**account, "refresh_token": "r"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where tokens are given, nobody is
    with pytest.raises(OSError, match=r"Google Cloud Storage|credentials") as caught:
        resolve(source)
    assert not isinstance(caught.value, FileNotFoundError)


def test_azure_refuses_another_key(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    source, _ = Put("az", azure)(DATA)
    azure.fail(status=403, headers={"x-ms-error-code": "AuthenticationFailed"})
    with pytest.raises(
        PermissionError, match=r"Azure \(AuthenticationFailed\) answers 403"
    ) as caught:
        resolve(source)
    assert azure.KEY not in str(caught.value)


def test_without_an_account_azure_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING", raising=False)
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(OSError, match="nothing says which storage account"):
        resolve("az://container/w.pt")


def test_a_blob_that_changes_is_not_mixed(azure: Azure) -> None:
    source, _ = Put("az", azure)(DATA)
    with closing(open_source(source)) as opened, closing(opened.open()) as stream:
        stream.read(1)
        Put("az", azure)(DATA[::-1])
        with pytest.raises(ConnectionError, match="has changed meanwhile"):
            list(iter(lambda: stream.read(1 << 20), b""))


def test_no_place_is_told_apart_from_its_mirror(
    s3: Any, cache: Cache, refer: Refer, patience: Patience, tmp_path: Path
) -> None:
    reference = refer("s3://nowhere/w.pt", str(tmp_path / "gone.pt"), data=DATA)
    with pytest.raises(WeightsError) as caught:
        fetch(reference, cache, patience=patience)
    assert "s3://nowhere/w.pt: there is no such bucket" in str(caught.value)
