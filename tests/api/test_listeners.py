"""Ports."""

from __future__ import annotations

import pytest

from hatch_mar.api.listeners import Address, bind
from hatch_mar.errors import AddressInUseError
from tests.support.ports import free_ports


def address(host: str = "127.0.0.1", port: int = 0) -> Address:
    return Address(purposes=("management",), host=host, port=port, flag="--management-port")


def test_a_free_port_is_ours_at_once() -> None:
    bound = bind(address())
    port = bound.socket.getsockname()[1]
    try:
        with pytest.raises(AddressInUseError) as caught:
            bind(address(port=port))
    finally:
        bound.socket.close()
    assert str(caught.value) == (
        f"127.0.0.1:{port}: the management port is taken; choose another with --management-port"
    )


def test_a_port_is_free_again_after_it_was_closed() -> None:
    (port,) = free_ports(1)
    bind(address(port=port)).socket.close()
    bind(address(port=port)).socket.close()


def test_url() -> None:
    bound = bind(address())
    assert bound.url == f"http://127.0.0.1:{bound.socket.getsockname()[1]}"
    bound.socket.close()


def test_an_address_of_another_machine() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0: .*; see --management-port"):
        bind(address(host="192.0.2.1"))
