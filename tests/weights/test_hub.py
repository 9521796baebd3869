"""`hf:` sources, read by huggingface_hub's own client from a Hub on loopback."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from hatch_mar.errors import WeightsError
from hatch_mar.weights.address import HubAddress
from hatch_mar.weights.fetch import Patience, fetch
from hatch_mar.weights.network import Network
from hatch_mar.weights.stores import open_source, resolve
from hatch_mar.weights.stores.hub import HubSource
from tests.support.stores import Hub, serving, silence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatch_mar.weights.cache import Cache
    from hatch_mar.weights.reference import Reference

    Refer = Callable[..., Reference]

DATA = bytes(range(256)) * 12_000
SHA256 = hashlib.sha256(DATA).hexdigest()
REPOSITORY = "acme/net"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub with one repository; nobody is logged in."""
    hub = Hub()
    with serving(hub):
        # The library reads its environment when it is imported, and others may have done that.
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.removeprefix(constants.ENDPOINT)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + template)
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", "/nonexistent")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        close_session()
        yield hub
        close_session()


def read(source: Any, start: int = 0, stop: int | None = None) -> bytes:
    stream = source.open(start, stop)
    assert stream.start == start
    data = b"".join(iter(lambda: stream.read(1 << 16), b""))
    stream.close()
    return data


def test_a_file_is_fetched(hub: Hub, cache: Cache, refer: Refer) -> None:
    hub.commit(REPOSITORY, {"sub/w 1.pt": DATA})
    assert fetch(refer(f"hf://{REPOSITORY}@main/sub/w 1.pt"), cache).read_bytes() == DATA


def test_a_moving_branch_becomes_a_commit(hub: Hub) -> None:
    first = hub.commit(REPOSITORY, {"w.pt": DATA})
    resolved = resolve(f"hf://{REPOSITORY}/w.pt")
    assert resolved.source == f"hf://{REPOSITORY}@{first}/w.pt"
    assert (resolved.size, resolved.sha256) == (len(DATA), SHA256)
    second = hub.commit(REPOSITORY, {"w.pt": DATA[::-1]})
    assert resolve(f"hf://{REPOSITORY}/w.pt").source == f"hf://{REPOSITORY}@{second}/w.pt"
    assert resolve(resolved.source) == resolved
    assert read(open_source(resolved.source, stall=5)) == DATA


def test_of_a_small_file_the_hub_knows_no_sha256(hub: Hub) -> None:
    hub.commit(REPOSITORY, {"config.json": b"{}"})
    resolved = resolve(f"hf://{REPOSITORY}/config.json")
    assert (resolved.size, resolved.sha256) == (2, None)
    assert read(open_source(f"hf://{REPOSITORY}/config.json")) == b"{}"


@pytest.mark.parametrize(("start", "stop"), [(0, None), (1_000_000, None), (5, 9), (0, 3)])
def test_any_part_can_be_read(hub: Hub, start: int, stop: int | None) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    assert read(open_source(f"hf://{REPOSITORY}/w.pt"), start, stop) == DATA[start:stop]


def test_every_stream_knows_the_whole_and_its_digest(hub: Hub) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    stream = open_source(f"hf://{REPOSITORY}/w.pt").open(7)
    assert (stream.start, stream.total, stream.version) == (7, len(DATA), SHA256)
    stream.close()


def test_behind_the_end_is_the_beginning(hub: Hub) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    stream = open_source(f"hf://{REPOSITORY}/w.pt").open(len(DATA))
    assert stream.start == 0
    stream.close()


def test_a_broken_connection_is_taken_up(
    hub: Hub, cache: Cache, refer: Refer, patience: Patience
) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    reference = refer(f"hf://{REPOSITORY}/w.pt")
    hub.fail(status=503)
    hub.fail(truncate=0)
    hub.fail(truncate=2_000_000)
    assert fetch(reference, cache, patience=patience).read_bytes() == DATA


def test_other_repositories_and_revisions(hub: Hub) -> None:
    hub.commit("datasets/acme/data", {"w.pt": DATA})
    hub.commit("gpt2", {"a/w.pt": DATA})
    assert read(open_source("hf://datasets/acme/data@refs/pr/1/w.pt")) == DATA
    assert read(open_source("hf://datasets/acme/data@refs%2Fpr%2F1/w.pt")) == DATA
    assert read(open_source("hf://gpt2@main/a/w.pt")) == DATA
    assert {asked.path for asked in hub.asked if "data" in asked.path} == {
        "/datasets/acme/data/resolve/refs%2Fpr%2F1/w.pt"
    }


def test_a_private_repository_needs_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    hub.private.add(REPOSITORY)
    with pytest.raises(PermissionError, match="or it is private: set HF_TOKEN"):
        resolve(f"hf://{REPOSITORY}/w.pt")
    monkeypatch.setenv("HF_TOKEN", hub.TOKEN)
    assert resolve(f"hf://{REPOSITORY}/w.pt").sha256 == SHA256
    assert read(open_source(f"hf://{REPOSITORY}/w.pt")) == DATA


@pytest.mark.parametrize("token", [None, Hub.TOKEN])
def test_a_gated_repository(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    hub.gated.add(REPOSITORY)
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    for ask in (resolve, lambda uri: open_source(uri).open()):
        with pytest.raises(PermissionError, match="is gated: accept its terms") as caught:
            ask(f"hf://{REPOSITORY}/w.pt")
        assert Hub.TOKEN not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (f"hf://{REPOSITORY}@v9/w.pt", f"'{REPOSITORY}' has no revision 'v9'"),
        (f"hf://{REPOSITORY}/gone.pt", f"'{REPOSITORY}' has no file 'gone.pt' at 'main'"),
        ("hf://acme/gone/w.pt", "there is no model 'acme/gone', or it is private"),
    ],
)
def test_what_is_missing_is_said(hub: Hub, uri: str, message: str) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    for ask in (resolve, lambda uri: open_source(uri).open()):
        with pytest.raises(OSError, match=message) as caught:
            ask(uri)
        assert not isinstance(caught.value, ConnectionError | TimeoutError)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_told_apart(hub: Hub, status: int) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    for ask in (resolve, lambda uri: open_source(uri).open()):
        hub.fail(status=status)
        with pytest.raises(ConnectionError, match=f"the Hub answers {status}"):
            ask(f"hf://{REPOSITORY}/w.pt")


def test_no_message_tells_where_the_hub_has_sent_us(
    hub: Hub, cache: Cache, refer: Refer, patience: Patience
) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    hub.fail(status=302, headers={"Location": f"{hub.url}/cdn/gone?Signature=hunter2"})
    with pytest.raises(WeightsError, match="the Hub has no such file") as caught:
        fetch(refer(f"hf://{REPOSITORY}/w.pt"), cache, patience=patience)
    assert "hunter2" not in str(caught.value)


def test_a_server_that_is_gone(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}"
    )
    with pytest.raises(ConnectionError, match="the Hub cannot be read"):
        open_source(f"hf://{REPOSITORY}/w.pt").open()


def test_a_server_that_is_silent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with silence() as url:
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        with pytest.raises(TimeoutError, match="sends nothing"):
            resolve(f"hf://{REPOSITORY}/w.pt", stall=0.3)
        with pytest.raises(TimeoutError, match="sends nothing"):
            open_source(f"hf://{REPOSITORY}/w.pt", stall=0.3).open()


def test_the_librarys_own_offline_switch_holds(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="HF_HUB_OFFLINE forbids") as caught:
        resolve(f"hf://{REPOSITORY}/w.pt")
    assert not isinstance(caught.value, ConnectionError), "it will not pass"


def test_the_endpoint_is_the_environments(hub: Hub) -> None:
    hub.commit(REPOSITORY, {"w.pt": DATA})
    code = (
        "from hatch_mar.weights.stores import resolve\n"
        f"print(resolve('hf://{REPOSITORY}/w.pt').sha256)"
    )
    environ = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.TOKEN, "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=environ, text=True).strip() == SHA256
    assert hub.asked[-1].headers["authorization"] == f"Bearer {hub.TOKEN}"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("http://169.254.169.254/latest/meta-data/", "it is a cloud's metadata service"),
        ("http://[::ffff:169.254.169.254]/latest/", "it is a cloud's metadata service"),
        ("http://metadata.google.internal/", "it is a cloud's metadata service"),
        ("/acme/net/resolve/main/w.pt", "without end"),
    ],
)
def test_where_the_hub_may_not_lead(hub: Hub, location: str, reason: str) -> None:
    hub.fail(20, status=302, headers={"Location": location})
    with pytest.raises(OSError, match=reason):
        open_source(f"hf://{REPOSITORY}/w.pt", stall=5).open()


def test_a_public_hub_leads_to_no_private_address(hub: Hub) -> None:
    """127.0.0.1 stands for a server on the internet; `localhost` is ::1 or 127.0.0.2."""
    hub.commit(REPOSITORY, {"w.pt": DATA})
    names = {"localhost": ["127.0.0.2"]}
    network = Network(
        public=(ip_network("127.0.0.1/32"),), resolve=lambda host, _: names.get(host, [host])
    )
    source = HubSource(HubAddress.parse(f"hf://{REPOSITORY}/w.pt"), 5.0, network)
    with pytest.raises(PermissionError, match="public server redirects to a private address"):
        source.open()
    assert [asked.path for asked in hub.asked] == [f"/{REPOSITORY}/resolve/main/w.pt"]
