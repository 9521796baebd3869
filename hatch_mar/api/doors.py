"""Which application answers on which port."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hatch_mar.api.app import create_app
from hatch_mar.api.guard import TOKEN_VARIABLE, Gate, Guard, TokenGate
from hatch_mar.api.lane import Lane
from hatch_mar.api.listeners import Listener
from hatch_mar.api.management import Management

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hatch_mar.api.access_log import AccessLog
    from hatch_mar.api.cors import Cors
    from hatch_mar.api.health import Readiness
    from hatch_mar.api.listeners import BoundSocket
    from hatch_mar.api.operations import Operations
    from hatch_mar.api.tokens import Tokens
    from hatch_mar.serve import Service


def make_listeners(
    sockets: Sequence[BoundSocket],
    service: Service,
    *,
    readiness: Readiness,
    operations: Operations,
    access_log: AccessLog | None,
    max_request_size: int,
    max_response_size: int,
    tokens: Tokens | None = None,
    cors: Cors | None = None,
    open_inference: bool = False,
    environ: Mapping[str, str] = os.environ,
) -> list[Listener]:
    """Return a listener per socket, each with the part of the API that its address is for.

    With `tokens`, requests need TorchServe's keys.
    """
    listeners = []
    for bound in sockets:
        purposes = bound.address.purposes
        predicts = "inference" in purposes
        gate: Gate = Guard(host=bound.address.host, token=environ.get(TOKEN_VARIABLE, ""))
        if tokens is not None:
            gate = TokenGate(tokens)
        app = create_app(
            service,
            readiness=readiness,
            inference=predicts,
            metrics="metrics" in purposes,
            management=Management(operations, gate, tokens) if "management" in purposes else None,
            tokens=tokens,
            access_log=access_log,
            max_request_size=max_request_size,
            max_response_size=max_response_size,
            cors=cors,
            open_inference=open_inference,
        )
        lane = Lane(
            service=service,
            predicts=predicts,
            tokens=tokens,
            access_log=access_log,
            max_request_size=max_request_size,
            max_response_size=max_response_size,
            cors=cors,
        )
        listeners.append(Listener(bound, app, lane))
    return listeners
