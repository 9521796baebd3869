"""Who may manage: on loopback whoever is on the machine, elsewhere whoever has the token.

A page in a browser on the machine is not meant: its requests for a name that it had resolved to
127.0.0.1 carry that name in `Host`, and are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
from typing import TYPE_CHECKING, Protocol

from hatch_mar.errors import WrongHostError, WrongTokenError

if TYPE_CHECKING:
    from starlette.datastructures import Headers

    from hatch_mar.api.tokens import Tokens

TOKEN_VARIABLE = "HATCH_MAR_MANAGEMENT_TOKEN"  # noqa: S105 - the name of a variable
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach a listener on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Gate(Protocol):
    """Whatever looks at a management request first."""

    def check(self, headers: Headers) -> None:
        """Return if the request may pass; raise `RequestError` if not."""
        ...


class TokenGate:
    """TorchServe's own rule for management: whoever has the key."""

    def __init__(self, tokens: Tokens) -> None:
        """Ask for the management key of `tokens`."""
        self._tokens = tokens

    def check(self, headers: Headers) -> None:
        """Return if the request may pass.

        Raises:
            WrongTokenError: it lacks the key.
        """
        self._tokens.check("management", headers.get("authorization", ""))


class Guard:
    """Lets a management request pass, or raises."""

    def __init__(self, *, host: str, token: str = "") -> None:
        """Guard a listener on `host`; an empty `token` asks for none."""
        self._token = token.encode()
        self._hosts = _LOCAL_NAMES | {host.lower()} if is_loopback(host) else None

    def check(self, headers: Headers) -> None:
        """Return if the request may pass.

        Raises:
            WrongHostError: its `Host` is not this machine.
            WrongTokenError: it lacks the token.
        """
        if self._hosts is not None and _host_name(headers.get("host", "")) not in self._hosts:
            raise WrongHostError(
                "Host not allowed: management on loopback answers to localhost alone."
            )
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if self._token and not (
            scheme.lower() == "bearer"
            and hmac.compare_digest(token.strip().encode("latin-1", "replace"), self._token)
        ):
            raise WrongTokenError(
                "Token Authorization failed. Token either incorrect, expired, or not provided "
                "correctly"
            )


def _host_name(host: str) -> str:
    """Return the name in a `Host` header, without its port; IPv6 keeps its brackets."""
    name = host.lower()
    if name.startswith("["):
        return name.partition("]")[0] + "]"
    return name.partition(":")[0]
