"""Where the options make a runner listen."""

from __future__ import annotations

import click
import pytest

from hatch_mar.cli.options import (
    ServeOptions,
    list_addresses,
    read_device,
)
from hatch_mar.cli.serve import command
from hatch_mar.errors import UnguardedManagementError

TOKEN = {"HATCH_MAR_MANAGEMENT_TOKEN": "s3cret"}


def listed(options: ServeOptions, *, separate: bool = True) -> list[str]:
    return [
        f"{','.join(address.purposes)} {address.host}:{address.port} {address.flag}"
        for address in list_addresses(options, TOKEN, separate=separate)
    ]


def test_three_ports() -> None:
    assert listed(ServeOptions()) == [
        "inference 127.0.0.1:8080 --port",
        "management 127.0.0.1:8081 --management-port",
        "metrics 127.0.0.1:8082 --metrics-port",
    ]


def test_ports_follow_the_first() -> None:
    assert listed(ServeOptions(port=9000, metrics_port=7))[1:] == [
        "management 127.0.0.1:9001 --management-port",
        "metrics 127.0.0.1:7 --metrics-port",
    ]


def test_one_port() -> None:
    assert listed(ServeOptions(), separate=False) == ["inference,metrics 127.0.0.1:8080 --port"]


def test_any_free_ports() -> None:
    addresses = listed(ServeOptions(port=0))
    assert len(addresses) == 3
    assert all(":0 " in address for address in addresses)
    assert len(listed(ServeOptions(port=0), separate=False)) == 1


def test_one_address_for_all_is_one_listener() -> None:
    options = ServeOptions(port=9000, management_port=9000, metrics_port=9000)
    assert listed(options) == ["inference,management,metrics 127.0.0.1:9000 --port"]


def test_host_is_not_the_managements() -> None:
    assert listed(ServeOptions(host="0.0.0.0")) == [
        "inference 0.0.0.0:8080 --port",
        "management 127.0.0.1:8081 --management-port",
        "metrics 0.0.0.0:8082 --metrics-port",
    ]


def test_management_for_others_needs_a_token() -> None:
    options = ServeOptions(management_host="10.0.0.1")
    with pytest.raises(UnguardedManagementError, match="HATCH_MAR_MANAGEMENT_TOKEN"):
        list_addresses(options, {}, separate=True)
    assert listed(options)[1] == "management 10.0.0.1:8081 --management-port"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("auto", ("auto", None)),
        ("cpu", ("cpu", None)),
        ("gpu", ("gpu", None)),
        ("cuda", ("gpu", None)),
        ("1", ("gpu", (1,))),
        ("0,2", ("gpu", (0, 2))),
        ("cuda:1", ("gpu", (1,))),
        ("gpu:0,1", ("gpu", (0, 1))),
    ],
)
def test_device(text: str, choice: object) -> None:
    assert read_device(click.Context(command), command.params[0], text) == choice


@pytest.mark.parametrize("text", ["", "tpu", "cpu:0", "auto1", "0,", ":", "-1", "0, 1"])
def test_no_device(text: str) -> None:
    with pytest.raises(click.BadParameter):
        read_device(click.Context(command), command.params[0], text)
