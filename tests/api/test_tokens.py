"""Keys as TorchServe has them."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.api.tokens import Tokens
from hatch_mar.errors import WrongTokenError

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(minutes=60)


class Clock:
    """A clock that stands still until somebody moves it."""

    def __init__(self) -> None:
        self.time = NOON

    def __call__(self) -> datetime:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(tmp_path: Path, clock: Clock) -> Tokens:
    return Tokens(tmp_path, lifetime=HOUR, now=clock)


def _keys(tokens: Tokens) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokens.path.read_text())
    return found


def _key(tokens: Tokens, name: str) -> str:
    return f"Bearer {_keys(tokens)[name]['key']}"


def test_the_file_is_torchserves_and_the_owners_alone(tokens: Tokens) -> None:
    assert tokens.path.name == "key_file.json"
    assert stat.S_IMODE(tokens.path.stat().st_mode) == 0o600
    keys = _keys(tokens)
    assert list(keys) == ["management", "inference", "API"]
    assert keys["inference"]["expiration time"] == "2026-01-01T13:00:00.000000Z"
    assert list(keys["API"]) == ["key"]
    assert {len(each["key"]) for each in keys.values()} == {8}
    assert len({each["key"] for each in keys.values()}) == 3


@pytest.mark.parametrize("purpose", ["management", "inference"])
def test_the_right_key_opens(tokens: Tokens, purpose: Any) -> None:
    tokens.check(purpose, _key(tokens, purpose))
    tokens.check(purpose, _key(tokens, purpose).replace(" ", " \t "))


@pytest.mark.parametrize("name", ["management", "API"])
def test_another_door_stays_shut(tokens: Tokens, name: str) -> None:
    with pytest.raises(WrongTokenError, match=r"^Token Authorization failed") as caught:
        tokens.check("inference", _key(tokens, name))
    assert caught.value.status == 400


@pytest.mark.parametrize("form", ["", "{}", "bearer {}", "Basic {}", "Bearer {}x", "Bearer {} y"])
def test_what_is_not_the_header_that_torchserve_reads(tokens: Tokens, form: str) -> None:
    key = _keys(tokens)["inference"]["key"]
    with pytest.raises(WrongTokenError):
        tokens.check("inference", form.format(key))


def test_a_key_in_no_ascii_is_wrong_and_nothing_worse(tokens: Tokens) -> None:
    with pytest.raises(WrongTokenError):
        tokens.check("inference", "Bearer schlüssel\udcff")


def test_a_key_ends(tokens: Tokens, clock: Clock) -> None:
    clock.time = NOON + HOUR - timedelta(seconds=1)
    tokens.check("inference", _key(tokens, "inference"))
    clock.time = NOON + HOUR
    with pytest.raises(WrongTokenError):
        tokens.check("inference", _key(tokens, "inference"))


def test_the_api_key_renews_one_of_the_others(tokens: Tokens, clock: Clock) -> None:
    before = _keys(tokens)
    clock.time = NOON + HOUR
    tokens.renew("inference", _key(tokens, "API"))
    after = _keys(tokens)
    assert after["management"] == before["management"]
    assert after["API"] == before["API"]
    assert after["inference"]["key"] != before["inference"]["key"]
    assert after["inference"]["expiration time"] == "2026-01-01T14:00:00.000000Z"
    tokens.check("inference", _key(tokens, "inference"))
    with pytest.raises(WrongTokenError):
        tokens.check("inference", f"Bearer {before['inference']['key']}")


@pytest.mark.parametrize(
    ("purpose", "name"), [("inference", "management"), ("API", "API"), (None, "API"), ("", "API")]
)
def test_who_may_not_renew(tokens: Tokens, purpose: str | None, name: str) -> None:
    before = _keys(tokens)
    with pytest.raises(WrongTokenError, match=r"^Token Authentication failed") as caught:
        tokens.renew(purpose, _key(tokens, name))
    assert caught.value.status == 400
    assert _keys(tokens) == before


def test_a_key_that_cannot_be_written_is_not_in_force(tokens: Tokens) -> None:
    before, key = _keys(tokens), _key(tokens, "API")
    tokens.path.unlink()
    tokens.path.mkdir()
    with pytest.raises(OSError, match="key_file"):
        tokens.renew("inference", key)
    tokens.check("inference", f"Bearer {before['inference']['key']}")
    assert [path.name for path in tokens.path.parent.iterdir()] == ["key_file.json"]


def test_the_file_goes_with_its_runner(tokens: Tokens) -> None:
    tokens.remove()
    assert not tokens.path.exists()
    tokens.remove()
