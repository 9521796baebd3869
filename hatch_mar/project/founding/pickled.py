"""What a checkpoint of `torch.save` holds, read by an unpickler that makes nothing but stand-ins.

The pickle protocol calls what a file names. Here every name stands for something inert: tensors
become their name, type and shape, and whatever else a file wants to make is noted, and not made.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""What the first of a legacy file's pickles is, by torch's own rule."""
STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")
"""Where training scripts put the weights in a checkpoint that holds more, for `handler_factory`."""
HARMLESS = frozenset(
    {
        ("_codecs", "encode"),
        ("builtins", "bytearray"),
        ("builtins", "complex"),
        ("builtins", "set"),
        ("__builtin__", "set"),
        ("collections", "Counter"),
        ("collections", "defaultdict"),
        ("torch", "device"),
        ("torch", "Size"),
        ("torch.nn.parameter", "Parameter"),
    }
)
"""Names that torch.load accepts with `weights_only=True`, beside tensors, storages and dtypes."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor by its description."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pickled:
    """What there is in a pickle."""

    tensors: tuple[Tensor, ...] = ()
    module: str | None = None
    """The class of the whole object, if it is no container."""
    strangers: tuple[str, ...] = ()
    """Dotted names of what torch.load would refuse to make."""


class _StandIn:
    """Takes whatever a pickle does to an object, and does nothing."""

    label = "object"

    def __new__(cls, *_: object, **__: object) -> _StandIn:  # noqa: PYI034 - never subclassed usefully
        return super().__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def __setitem__(self, _: object, __: object) -> None:
        pass

    def append(self, _: object) -> None:
        pass

    def extend(self, _: object) -> None:
        pass


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.strangers: list[str] = []

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401 - a class or a function
        label = f"{module}.{name}"
        if label in ("collections.OrderedDict", "builtins.dict"):
            return OrderedDict
        if module == "torch._utils" and name.startswith("_rebuild_"):
            return REBUILDERS.get(name, _rebuild_other)
        if label == "torch._tensor._rebuild_from_type_v2":
            return _rebuild_from_type
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return name.removesuffix("Storage").lower()
        if module == "torch" and name[:1].islower() and (module, name) not in HARMLESS:
            return name  # a dtype or a layout
        if (module, name) not in HARMLESS and label not in self.strangers:
            self.strangers.append(label)
        return type(name, (_StandIn,), {"label": label})

    def persistent_load(self, pid: Any) -> Any:  # noqa: ANN401 - what torch writes: a tuple
        if isinstance(pid, tuple) and pid[:1] == ("module",):
            return pid[1]  # a class, beside which the legacy format keeps its source
        return pid


def _rebuild_tensor(storage: Any, _offset: Any, size: Any, *_: Any) -> Tensor:  # noqa: ANN401
    kind = storage[1] if isinstance(storage, tuple) and len(storage) > 1 else ""
    return Tensor("", str(kind), tuple(map(int, size)))


def _rebuild_other(*_: Any) -> Tensor:  # noqa: ANN401 - quantized, sparse, nested, ...
    return Tensor("", "", ())


def _rebuild_from_type(rebuild: Callable[..., Any], _kind: Any, arguments: Any, *_: Any) -> Any:  # noqa: ANN401
    return rebuild(*arguments) if rebuild in REBUILDERS.values() else _rebuild_other()


REBUILDERS: Mapping[str, Callable[..., Any]] = {
    "_rebuild_tensor": _rebuild_tensor,
    "_rebuild_tensor_v2": _rebuild_tensor,
    "_rebuild_tensor_v3": _rebuild_tensor,
    "_rebuild_parameter": lambda data, *_: data,
    "_rebuild_parameter_with_state": lambda data, *_: data,
}


def read_pickle(file: IO[bytes]) -> Pickled:
    """Describe the one pickle in `file`.

    Raises:
        ValueError: it is broken.
    """
    return _describe(*_load(file))


def read_legacy(file: IO[bytes]) -> Pickled:
    """Describe a checkpoint in torch's format before 1.6: several pickles, one after another.

    Raises:
        ValueError: it is broken, or a pickle that torch did not write.
    """
    magic, _ = _load(file)
    if magic != LEGACY_MAGIC:
        raise ValueError("is a pickle that torch.save did not write; save `model.state_dict()`")
    for _ in ("protocol", "system"):
        _load(file)
    return _describe(*_load(file))


def _load(file: IO[bytes]) -> tuple[Any, list[str]]:
    reader = _Reader(file)
    try:
        return reader.load(), reader.strangers
    # A pickle may do anything to the stand-ins, and each mistake has an exception of its own.
    except Exception as error:
        raise ValueError(f"is a broken pickle: {error}") from error


def _describe(loaded: Any, strangers: list[str]) -> Pickled:  # noqa: ANN401 - what was in there
    if isinstance(loaded, _StandIn):
        return Pickled(module=loaded.label)
    state = loaded
    for key in STATE_DICT_KEYS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            state = loaded[key]
            break
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), _StandIn):
            return Pickled(module=loaded[key].label)
    return Pickled(tensors=tuple(_tensors(state)), strangers=tuple(strangers))


def _tensors(state: Any) -> Iterator[Tensor]:  # noqa: ANN401
    if isinstance(state, Mapping):
        for name, value in state.items():
            if isinstance(value, Tensor):
                yield Tensor(str(name), value.dtype, value.shape)
