"""Which services answer on which of gRPC's ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.api.rpc.inference import Inference
from hatch_mar.api.rpc.management import Management
from hatch_mar.api.rpc.open_inference import OpenInference
from hatch_mar.api.rpc.schema import INFERENCE, MANAGEMENT, OPEN_INFERENCE
from hatch_mar.api.rpc.server import RpcServer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatch_mar.api.health import Readiness
    from hatch_mar.api.operations import Operations
    from hatch_mar.api.rpc.server import RpcAddress
    from hatch_mar.api.tokens import Tokens
    from hatch_mar.serve import Service


def make_rpc_servers(
    addresses: Iterable[RpcAddress],
    service: Service,
    *,
    readiness: Readiness,
    operations: Operations,
    max_request_size: int,
    max_response_size: int,
    tokens: Tokens | None = None,
    open_inference: bool = False,
    sequence_header: str = "ts_request_sequence_id",
) -> list[RpcServer]:
    """Return a server per address.

    The open inference protocol is on the inference port, where it is asked for: TorchServe's switch
    is `ts_open_inference_protocol`.
    """
    servers = []
    for address in addresses:
        services: dict[str, object] = {}
        if address.purpose == "inference":
            services[INFERENCE] = Inference(service, readiness, sequence_header)
            if open_inference:
                services[OPEN_INFERENCE] = OpenInference(service)
        else:
            services[MANAGEMENT] = Management(operations)
        servers.append(
            RpcServer(
                address,
                services,
                max_request_size=max_request_size,
                max_response_size=max_response_size,
                tokens=tokens,
            )
        )
    return servers
