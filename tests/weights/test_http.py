from __future__ import annotations

import ssl
import time
from base64 import b64encode
from email.utils import formatdate
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trustme

from hatch_mar.weights.network import Network
from hatch_mar.weights.stores.http import HttpSource
from hatch_mar.weights.stores.protocol import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Start = Callable[..., Any]

PUBLIC = Network(public=(ip_network("127.0.0.2/32"),))
"""127.0.0.2 stands for a server on the internet."""
DATA = b"weights" * 1000


def _source(uri: str, network: Network | None = None) -> HttpSource:
    return HttpSource(uri, 5.0, network or Network())


def _read(source: HttpSource, start: int = 0, stop: int | None = None) -> bytes:
    stream = source.open(start, stop)
    found = b""
    while data := stream.read(1000):
        found += data
    stream.close()
    return found


# Parts and versions.


def test_parts(site: Any) -> None:
    source = _source(site("/w", DATA))
    assert _read(source) == DATA
    assert _read(source, 7) == DATA[7:]
    assert _read(source, 7, 70) == DATA[7:70]
    stream = source.open(7, 70)
    assert (stream.start, stream.total) == (7, len(DATA))
    stream.close()
    source.close()
    assert site.asked == ["/w", "/w bytes=7-", "/w bytes=7-69", "/w bytes=7-69"]


def test_a_part_is_asked_for_only_of_the_same_file(site: Any) -> None:
    source = _source(site("/w", DATA))
    source.open().close()
    tag = source.open(7).version
    assert tag is not None
    assert site.headers[-1]["If-Range"] == tag
    site.files["/w"] = DATA[::-1]
    changed = source.open(7)
    assert changed.start == 0
    assert changed.version != tag
    changed.close()


def test_a_weak_tag_is_no_version(site: Any) -> None:
    site.fail(headers={"ETag": 'W/"1"'})
    stream = _source(site("/w", DATA)).open()
    assert stream.version is None
    stream.close()


def test_behind_the_end_is_the_whole(site: Any) -> None:
    stream = _source(site("/w", DATA)).open(len(DATA) + 5)
    assert stream.start == 0
    stream.close()


@pytest.mark.parametrize(
    "value", ["bytes 9-20/7000", "bytes */7000", "lines 1-2/3", "", f"bytes 7-69/{'9' * 5000}"]
)
def test_another_part_than_asked_for_is_no_part(site: Any, value: str) -> None:
    site.fail(headers={"Content-Range": value})
    stream = _source(site("/w", DATA)).open(7, 70)
    assert (stream.start, stream.total) == (0, len(DATA))
    stream.close()


# What servers say.


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_says_when_to_come_again(site: Any, status: int) -> None:
    site.fail(status=status, headers={"Retry-After": "7"})
    with pytest.raises(BusyError, match=f"answers {status}") as caught:
        _source(site("/w")).open()
    assert caught.value.retry_after == 7


def test_a_date_to_come_again(site: Any) -> None:
    site.fail(status=503, headers={"Retry-After": formatdate(time.time() + 50, usegmt=True)})
    with pytest.raises(BusyError) as caught:
        _source(site("/w")).open()
    assert 40 < caught.value.retry_after <= 50


@pytest.mark.parametrize("value", ["soon", "-1", "", "1e9"])
def test_a_server_that_does_not_know_when(site: Any, value: str) -> None:
    site.fail(status=503, headers={"Retry-After": value})
    with pytest.raises(ConnectionError) as caught:
        _source(site("/w")).open()
    assert not isinstance(caught.value, BusyError)


# Redirects.


def test_a_chain_of_redirects(site: Any) -> None:
    for number in range(9):
        site.redirects[f"/{number}"] = f"/{number + 1}"
    site("/9", DATA)
    assert _read(_source(site.url + "/0")) == DATA


def test_a_chain_without_end(site: Any) -> None:
    site.redirects["/0"] = "/0"
    with pytest.raises(OSError, match="redirects without end"):
        _source(site.url + "/0").open()
    assert len(site.asked) == 11


def test_a_public_server_leads_to_no_private_one(start_site: Start) -> None:
    outside, inside = start_site("127.0.0.2"), start_site()
    outside.redirects["/w"] = inside("/w", DATA)
    with pytest.raises(PermissionError, match="public server redirects to a private address"):
        _source(outside.url + "/w", PUBLIC).open()
    assert inside.asked == []


def test_nor_by_a_name_that_means_one(start_site: Start) -> None:
    outside, inside = start_site("127.0.0.2"), start_site()
    url = inside("/w", DATA).replace("127.0.0.1", "localhost")
    outside.redirects["/w"] = url
    assert _read(_source(url, PUBLIC)) == DATA, "the author may name it"
    with pytest.raises(PermissionError, match="public server redirects to a private address"):
        _source(outside.url + "/w", PUBLIC).open()
    assert len(inside.asked) == 1


def test_nor_by_a_connection_that_is_still_open(start_site: Start) -> None:
    """What the author's own redirect has opened is not used for a stranger's."""
    outside, inside = start_site("127.0.0.2"), start_site()
    inside.redirects["/start"] = outside.url + "/middle"
    outside.redirects["/middle"] = inside("/w", DATA)
    with pytest.raises(PermissionError, match="public server redirects to a private address"):
        _source(inside.url + "/start", PUBLIC).open()
    assert inside.asked == ["/start"]


def test_nor_by_way_of_another_public_one(start_site: Start) -> None:
    outside, inside = start_site("127.0.0.2"), start_site()
    outside.redirects["/a"] = "/b"
    outside.redirects["/b"] = inside("/w", DATA)
    with pytest.raises(PermissionError, match="public server redirects"):
        _source(outside.url + "/a", PUBLIC).open()


def test_a_private_server_leads_anywhere(start_site: Start) -> None:
    outside, inside = start_site("127.0.0.2"), start_site()
    inside.redirects["/w"] = outside("/w", DATA)
    inside.redirects["/v"] = inside("/w2", DATA)
    assert _read(_source(inside.url + "/w", PUBLIC)) == DATA
    assert _read(_source(inside.url + "/v", PUBLIC)) == DATA


def test_a_name_that_means_something_else_the_next_time(start_site: Start) -> None:
    """The address that was looked at is the one that is connected to."""
    outside, inside = start_site("127.0.0.2"), start_site()
    outside("/w", DATA)
    answers = ["127.0.0.2", "127.0.0.1"]
    network = Network(public=PUBLIC.public, resolve=lambda *_: [answers.pop(0)])
    assert _read(_source(outside.url.replace("127.0.0.2", "localhost") + "/w", network)) == DATA
    assert answers == ["127.0.0.1"], "it is asked once"
    assert inside.asked == []


@pytest.mark.parametrize("by", ["name", "redirect"])
def test_metadata_is_refused(site: Any, by: str) -> None:
    names = {"rebound.example": ["169.254.169.254"]}
    network = Network(resolve=lambda host, _: names.get(host, [host]))
    uri = "http://rebound.example/w"
    if by == "redirect":
        site.redirects["/w"] = "http://169.254.169.254/latest/meta-data/"
        uri = site.url + "/w"
    with pytest.raises(PermissionError, match="refused to connect: it is a cloud's metadata"):
        _source(uri, network).open()


# TLS.


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    return authority


def _tls(authority: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_tls(start_site: Start, authority: trustme.CA) -> None:
    site = start_site(tls=_tls(authority))
    source = _source(site("/w", DATA))
    assert _read(source) == DATA
    assert _read(source, 7, 70) == DATA[7:70]
    source.close()


def test_a_certificate_of_nobody_known(start_site: Start, authority: trustme.CA) -> None:
    site = start_site(tls=_tls(trustme.CA()))
    message = "certificate is not trusted: .*; SSL_CERT_FILE names the authorities"
    with pytest.raises(OSError, match=message) as caught:
        _source(site("/w", DATA)).open()
    assert not isinstance(caught.value, ConnectionError), "it will not be another one next time"


def test_https_does_not_lead_to_http(start_site: Start, site: Any, authority: trustme.CA) -> None:
    secure = start_site(tls=_tls(authority))
    secure.redirects["/w"] = site("/w", DATA)
    with pytest.raises(PermissionError, match="redirects from https to http"):
        _source(secure.url + "/w").open()
    assert site.asked == []


# Credentials.


def _basic(text: str) -> str:
    return "Basic " + b64encode(text.encode()).decode()


def test_the_user_of_the_url(site: Any) -> None:
    url = site("/w", DATA).replace("http://", "http://me%40corp:s%3Acret@")
    assert _read(_source(url)) == DATA
    assert site.headers[0]["Authorization"] == _basic("me@corp:s:cret")


def test_netrc(site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert _read(_source(site("/w", DATA))) == DATA
    assert site.headers[0]["Authorization"] == _basic("me:secret")


def test_a_netrc_that_cannot_be_read(
    site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password\nhunter2 secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with pytest.raises(OSError, match=r"netrc: line \d cannot be read; correct it") as caught:
        _source(site("/w", DATA)).open()
    assert "hunter2" not in str(caught.value)


def test_credentials_do_not_follow_to_another_server(
    start_site: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    home, other_port, other_host = start_site(), start_site(), start_site("127.0.0.2")
    home.redirects["/a"] = "/b"
    home.redirects["/b"] = other_port.url + "/c"
    other_port.redirects["/c"] = other_host.url.replace("//", "//you:too@") + "/w"
    other_host("/w", DATA)
    assert _read(_source(home.url + "/a")) == DATA
    sent = [each.headers[-1]["Authorization"] for each in (home, other_port, other_host)]
    assert sent == [_basic("me:secret"), None, None]
    assert home.headers[0]["Authorization"] == _basic("me:secret")


# Proxies.


def test_a_proxy(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site("/w", DATA)
    monkeypatch.setenv("http_proxy", site.url.replace("//", "//me:secret@"))
    monkeypatch.setenv("no_proxy", "")
    assert _read(_source("http://files.example/w")) == DATA
    assert site.asked == ["http://files.example/w"]
    assert site.headers[0]["Proxy-Authorization"] == _basic("me:secret")


def test_tls_through_a_proxy(
    start_site: Start, site: Any, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    secure = start_site(tls=_tls(authority, "files.example"))
    secure("/w", DATA)
    site.tunnel = ("127.0.0.1", urlsplit(secure.url).port)
    monkeypatch.setenv("https_proxy", site.url.replace("//", "//me:secret@"))
    monkeypatch.setenv("no_proxy", "")
    source = _source("https://files.example/w")
    assert _read(source) == DATA
    source.close()
    assert site.asked == ["CONNECT files.example:443"]
    assert site.headers[0]["Proxy-Authorization"] == _basic("me:secret")
    assert secure.headers[0]["Proxy-Authorization"] is None


def test_a_proxy_that_wants_another_password(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", site.url.replace("//", "//me:secret@"))
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConnectionError, match=r"proxy does not connect: Tunnel .* 407") as caught:
        _source("https://files.example/w").open()
    assert "secret" not in str(caught.value)


def test_a_proxy_of_a_kind_that_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://me:secret@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(OSError, match="the proxy of the environment is neither http nor https"):
        _source("http://files.example/w").open()


@pytest.mark.parametrize("uri", ["http://metadata.google.internal/w", "http://2852039166/w"])
def test_a_proxy_is_not_asked_for_metadata(
    site: Any, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(PermissionError, match="cloud's metadata"):
        _source(uri).open()
    assert site.asked == []


def test_a_redirect_behind_a_proxy(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", site.url)
    monkeypatch.setenv("no_proxy", "")
    site.redirects["/w"] = "http://10.0.0.1/admin"
    with pytest.raises(PermissionError, match="public server redirects to a private address"):
        _source("http://files.example/w").open()
    assert site.asked == ["http://files.example/w"]


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(ConnectionError, match="proxy does not connect: Connection ref") as caught:
        _source("http://files.example/w").open()
    assert "secret" not in str(caught.value)


# Names.


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(ConnectionError, match="the server's name is not known"):
        _source("http://nowhere.invalid/w").open()


@pytest.mark.parametrize("uri", ["http://a b/w", "http://[::1/w", "http://x:99999/w"])
def test_what_is_no_url(uri: str) -> None:
    with pytest.raises((OSError, ValueError)) as caught:
        _source(uri).open()
    assert type(caught.value) is not ConnectionError


@pytest.mark.parametrize("host", ["a..example", f"{'a' * 64}.example"])
def test_a_name_that_the_dns_cannot_have(site: Any, host: str) -> None:
    site.redirects["/w"] = f"http://{host}/w"
    for uri in (f"http://{host}/w", site.url + "/w"):
        with pytest.raises(OSError, match=r"^not a URL$"):
            _source(uri).open()


@pytest.mark.parametrize("length", [chr(0xB2), "9" * 5000, "-7"])
def test_a_length_that_is_no_number_is_not_known(site: Any, length: str) -> None:
    site.fail(unknown=True, headers={"Content-Length": length})
    stream = _source(site("/w", DATA)).open()
    assert stream.total is None
    stream.close()


def test_the_end_of_an_address_with_colons_is_no_port() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append((host, port))
        return ["169.254.169.254"]

    with pytest.raises(PermissionError, match="metadata"):
        _source("http://[fd00::254]/w", Network(resolve=resolve)).open()
    assert asked == [("fd00::254", 80)]


def test_a_home_that_nobody_has(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is only a number."""
    monkeypatch.setenv("NETRC", "~nobody-at-all/.netrc")
    assert _read(_source(site("/w", DATA))) == DATA
