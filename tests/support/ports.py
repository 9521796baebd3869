"""Free ports for servers that have to be told theirs before they start."""

from __future__ import annotations

import os
import socket
from itertools import count

_FIRST, _EACH = 20_000, 1_500
"""Below what Linux gives to those who ask for any port (`ip_local_port_range`): nobody is given one
of these by chance between its choice and its use."""
_next = count(os.getpid())  # other runs begin elsewhere


def free_ports(number: int) -> list[int]:
    """Return `number` ports of 127.0.0.1 that are free, and of no other test process of this run.

    Raises:
        RuntimeError: there are not so many.
    """
    first = _FIRST + _EACH * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    found: list[int] = []
    for _ in range(_EACH):
        if len(found) == number:
            return found
        port = first + next(_next) % _EACH
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue  # somebody's
        found.append(port)
    raise RuntimeError(f"no {number} free ports from {first} on")
