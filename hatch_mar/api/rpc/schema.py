"""Messages and services of our `.proto` files, without generated code.

Generated modules bind a project to the versions of protobuf that they were made for, and clash with
a client's own in one process. So what protoc makes of the files, a set of descriptors, is data here
(`protos/torchserve.binpb`), in a pool of its own.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = "org.pytorch.serve.grpc"
INFERENCE = f"{PACKAGE}.inference.InferenceAPIsService"
MANAGEMENT = f"{PACKAGE}.management.ManagementAPIsService"
OPEN_INFERENCE = f"{PACKAGE}.openinference.GRPCInferenceService"
DESCRIPTORS = "torchserve.binpb"


@cache
def _pool() -> Any:  # noqa: ANN401 - protobuf's pools come in two implementations
    data = files(__package__).joinpath("protos", DESCRIPTORS).read_bytes()
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


@cache
def message(name: str) -> Any:  # noqa: ANN401 - a class made at run time
    """Return the class of the message `name`, full or below `org.pytorch.serve.grpc`."""
    full = name if name.startswith(("org.", "google.")) else f"{PACKAGE}.{name}"
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(full))


def methods(service: str) -> Sequence[Any]:
    """Return the descriptors of the methods of `service`, a full name."""
    found: Sequence[Any] = _pool().FindServiceByName(service).methods
    return found
