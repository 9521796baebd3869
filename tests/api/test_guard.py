"""Who may manage."""

from __future__ import annotations

import pytest
from starlette.datastructures import Headers

from hatch_mar.api.guard import Guard, is_loopback
from hatch_mar.errors import WrongHostError, WrongTokenError


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "[::1]", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("host", ["localhost:8081", "LOCALHOST", "127.0.0.1:1", "[::1]:8081"])
def test_local_names_pass(host: str) -> None:
    Guard(host="127.0.0.1").check(Headers({"host": host}))


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8081", ""])
def test_other_names_do_not(host: str) -> None:
    with pytest.raises(WrongHostError):
        Guard(host="127.0.0.1").check(Headers({"host": host}))


def test_off_loopback_any_name_passes_with_the_token() -> None:
    guard = Guard(host="0.0.0.0", token="s3cret")
    guard.check(Headers({"host": "models.corp", "authorization": "Bearer s3cret"}))


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer s3cre", "Basic s3cret", "Bearer s3crét"])
def test_wrong_token(value: str) -> None:
    with pytest.raises(WrongTokenError):
        Guard(host="0.0.0.0", token="s3cret").check(Headers({"authorization": value}))
