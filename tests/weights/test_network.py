from __future__ import annotations

from ipaddress import ip_network

import pytest

from hatch_mar.weights.network import Network, RefusedError, Zone


def _network(**names: str) -> Network:
    table = {name.replace("_", "."): addresses.split() for name, addresses in names.items()}
    return Network(resolve=lambda host, _: table.get(host, [host]))


@pytest.mark.parametrize(
    ("address", "zone"),
    [
        ("93.184.215.14", Zone.PUBLIC),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", Zone.PUBLIC),
        ("64:ff9b::5db8:d70e", Zone.PUBLIC),
        ("10.0.0.1", Zone.PRIVATE),
        ("172.16.0.1", Zone.PRIVATE),
        ("192.168.1.1", Zone.PRIVATE),
        ("127.0.0.1", Zone.PRIVATE),
        ("127.8.8.8", Zone.PRIVATE),
        ("0.0.0.0", Zone.PRIVATE),
        ("100.64.0.1", Zone.PRIVATE),
        ("169.254.1.1", Zone.PRIVATE),
        ("198.18.0.1", Zone.PRIVATE),
        ("203.0.113.1", Zone.PRIVATE),
        ("224.0.0.1", Zone.PRIVATE),
        ("240.0.0.1", Zone.PRIVATE),
        ("255.255.255.255", Zone.PRIVATE),
        ("::", Zone.PRIVATE),
        ("::1", Zone.PRIVATE),
        ("fc00::1", Zone.PRIVATE),
        ("fe80::1", Zone.PRIVATE),
        ("fe80::1%eth0", Zone.PRIVATE),
        ("ff02::1", Zone.PRIVATE),
        ("2001:db8::1", Zone.PRIVATE),
        ("::ffff:10.0.0.1", Zone.PRIVATE),
        ("::ffff:127.0.0.1", Zone.PRIVATE),
        ("2002:7f00:1::", Zone.PRIVATE),
        ("64:ff9b::10.0.0.1", Zone.PRIVATE),
        ("::7f00:1", Zone.PRIVATE),
        ("169.254.169.254", Zone.METADATA),
        ("169.254.170.2", Zone.METADATA),
        ("169.254.170.23", Zone.METADATA),
        ("100.100.100.200", Zone.METADATA),
        ("168.63.129.16", Zone.METADATA),
        ("192.0.0.192", Zone.METADATA),
        ("fd00:ec2::254", Zone.METADATA),
        ("fd20:ce::254", Zone.METADATA),
        ("::ffff:169.254.169.254", Zone.METADATA),
        ("::ffff:a9fe:a9fe", Zone.METADATA),
        ("2002:a9fe:a9fe::1", Zone.METADATA),
        ("64:ff9b::a9fe:a9fe", Zone.METADATA),
        ("::a9fe:a9fe", Zone.METADATA),
    ],
)
def test_zones(address: str, zone: Zone) -> None:
    assert Network().zone_of(address) is zone


def test_what_an_operator_calls_public() -> None:
    network = Network(public=(ip_network("127.0.0.2/32"), ip_network("169.254.0.0/16")))
    assert network.zone_of("127.0.0.2") is Zone.PUBLIC
    assert network.zone_of("127.0.0.1") is Zone.PRIVATE
    assert network.zone_of("169.254.169.254") is Zone.METADATA


def test_an_author_may_name_a_private_address() -> None:
    network = _network(intra="10.0.0.1")
    found = network.addresses_of("intra", 80, from_public=False)
    assert found == [("10.0.0.1", Zone.PRIVATE)]


@pytest.mark.parametrize("addresses", ["10.0.0.1", "93.184.215.14 10.0.0.1", "::1"])
def test_a_public_server_may_not(addresses: str) -> None:
    network = _network(evil_example=addresses)
    with pytest.raises(RefusedError, match="a public server redirects to a private address; name"):
        network.addresses_of("evil.example", 80, from_public=True)


def test_a_public_server_may_name_another_public_one() -> None:
    network = _network(cdn_example="93.184.215.14 2606:4700::1")
    found = network.addresses_of("cdn.example", 443, from_public=True)
    assert found == [("93.184.215.14", Zone.PUBLIC), ("2606:4700::1", Zone.PUBLIC)]


@pytest.mark.parametrize(
    "host", ["rebound.example", "169.254.169.254", "metadata.google.internal", "Metadata.GOOG."]
)
def test_metadata_is_refused_whoever_names_it(host: str) -> None:
    network = _network(rebound_example="93.184.215.14 169.254.169.254")
    with pytest.raises(RefusedError, match="it is a cloud's metadata service, which holds"):
        network.addresses_of(host, 80, from_public=False)


@pytest.mark.parametrize(
    ("host", "zone"),
    [
        ("cdn.example", Zone.PUBLIC),
        ("93.184.215.14", Zone.PUBLIC),
        ("10.0.0.1", Zone.PRIVATE),
        ("127.1", Zone.PRIVATE),
        ("0x7f000001", Zone.PRIVATE),
        ("2130706433", Zone.PRIVATE),
        ("::1", Zone.PRIVATE),
        ("localhost", Zone.PRIVATE),
        ("a.localhost.", Zone.PRIVATE),
    ],
)
def test_what_a_name_says_behind_a_proxy(host: str, zone: Zone) -> None:
    assert Network().zone_behind_proxy(host, from_public=False) is zone
    if zone is Zone.PRIVATE:
        with pytest.raises(RefusedError):
            Network().zone_behind_proxy(host, from_public=True)


@pytest.mark.parametrize("host", ["169.254.169.254", "2852039166", "0xa9fea9fe", "metadata.goog"])
def test_metadata_is_refused_behind_a_proxy(host: str) -> None:
    with pytest.raises(RefusedError):
        Network().zone_behind_proxy(host, from_public=False)


def test_the_system_resolves_odd_notations_before_they_are_looked_at() -> None:
    for host in ("2852039166", "0xa9fea9fe", "0251.0376.0251.0376"):
        with pytest.raises(RefusedError):
            Network().addresses_of(host, 80, from_public=False)
    assert Network().addresses_of("127.1", 80, from_public=False) == [("127.0.0.1", Zone.PRIVATE)]
