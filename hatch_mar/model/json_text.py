"""JSON as TorchServe's workers read and write it: the standard library's values and bytes, sooner.

Two libraries help where they are installed, each with what it does exactly as `json` does:

* msgspec reads. Whatever it accepts it reads as `json` does, whole numbers of any size included;
  what it refuses (NaN, numbers beyond a float, half a surrogate pair, what is no JSON) is read, or
  refused, by `json`.
* orjson writes. Its numbers close to zero and its text beyond ASCII are spelled `json`'s way
  afterwards; what it has no words for (NaN, numbers of more than 64 bits, keys that are no text)
  is written without it.
"""

from __future__ import annotations

import json
import marshal
import re
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

try:
    from msgspec.json import Decoder
except ImportError:
    _read: Callable[[Any], Any] | None = None
else:
    _read = Decoder().decode

try:
    import orjson
except ImportError:
    _dump: Callable[..., bytes] | None = None
else:
    # Releases differ in how they write numbers; this one may be another than the one we ask for.
    _dump = orjson.dumps if orjson.dumps([1e16, 1e-6]) == b"[1e+16,1e-6]" else None
    _INDENT = orjson.OPT_INDENT_2

_DELETE = 0x7F
_OUTSIDE = re.compile("[^\0-~]+")
"""What `json` escapes and orjson does not."""
_ONE_DIGIT_EXPONENT = re.compile(rb"e-(?=[0-9],?$)", re.MULTILINE)
_SMALL = re.compile(rb"0\.0000(?<![0-9]0\.0000)[0-9]+(?=,?$)", re.MULTILINE)
"""Both are numbers: with an indent, a line that ends in a digit ends in a number."""


def read_json(text: str | bytes | bytearray | memoryview) -> Any:  # noqa: ANN401 - JSON
    """Return what `json.loads` does; bytes are UTF-8.

    Raises:
        ValueError, RecursionError: as `json.loads` does.
    """
    if _read is not None:
        try:
            return _read(text)
        except (ValueError, RecursionError):
            pass  # for `json` to say what it is, or is not
    return json.loads(text if isinstance(text, str) else str(text, "utf-8"))


def write_json(value: Any) -> bytes:  # noqa: ANN401 - a handler may return anything
    """Return exactly `json.dumps(value, indent=2)`, in bytes.

    Raises:
        TypeError, ValueError, RecursionError: JSON cannot say it; or whatever a class of the
            handler's own raises when it is looked at.
    """
    if _dump is not None:
        try:
            # orjson writes enumerations, UUIDs, dates and more; `json` refuses them. So does
            # marshal, which takes no instance of a subclass either.
            marshal.dumps(value, 2)
            text = _dump(value, None, _INDENT)
        except (TypeError, ValueError):
            pass
        else:
            if text.find(b"null") < 0:  # which may be a NaN
                return _respell(text)
    return write_plainly(value).encode()


def _respell(text: bytes) -> bytes:
    """Return what orjson wrote as `json` writes it."""
    # `find` takes half the time of `in`, which first tries whether it is given a number.
    if text.find(b"e-") >= 0:
        text = _ONE_DIGIT_EXPONENT.sub(b"e-0", text)
    if text.find(b"0.0000") >= 0:
        text = _SMALL.sub(lambda number: repr(float(number[0])).encode(), text)
    if text.isascii() and _DELETE not in text:
        return text
    escaped = _OUTSIDE.sub(lambda part: encode_basestring_ascii(part[0])[1:-1], text.decode())
    return escaped.encode()


def write_plainly(value: Any) -> str:  # noqa: ANN401
    """Return exactly `json.dumps(value, indent=2)`, with the standard library alone.

    That leaves C when it must indent, and then goes through a generator per item. Joining strings
    takes about a third of the time for a small object.
    """
    return _write(value, "\n")


def _write(value: Any, pad: str) -> str:  # noqa: ANN401
    """Return `value` as JSON; `pad` is the line break that comes before its closing bracket."""
    write = _SCALARS.get(type(value))
    if write is not None:
        return write(value)
    inner = pad + "  "
    if isinstance(value, dict):
        items = [f"{_write_key(key)}: {_write(item, inner)}" for key, item in value.items()]
        return f"{{{inner}{f',{inner}'.join(items)}{pad}}}" if items else "{}"
    if isinstance(value, list | tuple):
        get = _SCALARS.get
        items = [
            _write(item, inner) if (write := get(type(item))) is None else write(item)
            for item in value
        ]
        return f"[{inner}{f',{inner}'.join(items)}{pad}]" if items else "[]"
    return json.dumps(value)


def _write_key(key: Any) -> str:  # noqa: ANN401
    """Return an object's key as JSON: numbers, True, False and None are keys, too, in quotes."""
    return encode_basestring_ascii(key) if type(key) is str else json.dumps({key: 0})[1:-4]


def _write_float(value: float) -> str:
    text = float.__repr__(value)
    return _NOT_FINITE.get(text, text)


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_SCALARS: dict[type, Callable[[Any], str]] = {
    str: encode_basestring_ascii,
    int: int.__repr__,
    float: _write_float,
    bool: lambda value: "true" if value else "false",
    type(None): lambda _: "null",
}
"""How exact types are written; subclasses of them are left to the standard library."""
