"""JSON is read and written as the standard library does it, whichever library does the work."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import importlib.util
import json
import math
import struct
import sys
import uuid
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.model import json_text
from hatch_mar.model.json_text import read_json, write_json, write_plainly

if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = st.text(st.characters())
"""Any characters: also control characters and halves of surrogate pairs."""
SINGLE = st.floats(width=32)
"""What models answer."""
SMALL = st.floats(-1e-3, 1e-3) | st.sampled_from([1e-5, 1.5e-5, 9.99e-5, 1e-4, 1e-6, 1e-9, 1e-10])
LARGE = st.builds(math.ldexp, st.floats(-1, 1), st.integers(40, 1000))
FLOATS = st.floats() | SINGLE | SMALL | LARGE
INTEGERS = st.integers() | st.integers(-(2**70), 2**70) | st.sampled_from([2**63, 2**64, -(2**63)])
SCALARS = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT | st.sampled_from(["null", "1e-5,"])
KEYS = TEXT | st.integers() | st.booleans() | st.none() | st.floats()


def nest(scalars: st.SearchStrategy[Any], keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda children: (
            st.lists(children)
            | st.dictionaries(keys, children)
            | st.tuples(children, children)
            | st.just([])
            | st.just({})
        ),
        max_leaves=30,
    )


ANY_VALUE = nest(SCALARS, KEYS)
USUAL_VALUE = nest(st.integers(-(2**53), 2**53) | FLOATS | st.text(), st.text())
"""What the faster library may write, more often than not."""


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal in their types, too, and floats bit by bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return struct.pack("d", left) == struct.pack("d", right)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(map(same, left.values(), right.values()))
    return bool(left == right)


def attempt(act: Callable[[Any], Any], argument: Any) -> tuple[bool, Any]:
    """Return whether `act` succeeds, and with what: a value, or a kind of error."""
    try:
        return True, act(argument)
    except (ValueError, TypeError, RecursionError) as error:
        return False, type(error)


def read_with_standard_library(data: bytes) -> Any:
    return json.loads(str(data, "utf-8"))


def check_reading(data: bytes) -> None:
    expected = attempt(read_with_standard_library, data)
    for form in (data, bytearray(data), memoryview(data)):
        found = attempt(read_json, form)
        assert found[0] == expected[0]
        assert same(found[1], expected[1])


class TestReading:
    @given(ANY_VALUE, st.sampled_from([None, 2]), st.booleans())
    def test_what_can_be_written(self, value: Any, indent: int | None, ascii_only: bool) -> None:
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        check_reading(text.encode("utf-8", "surrogatepass"))

    @given(ANY_VALUE, st.data())
    def test_what_has_been_damaged(self, value: Any, data: st.DataObject) -> None:
        text = bytearray(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass"))
        place = data.draw(st.integers(0, len(text) - 1))
        width = data.draw(st.integers(0, 2))
        text[place : place + width] = data.draw(
            st.binary(max_size=2) | st.sampled_from([bytes([one]) for one in b'[]{},:"\\01.eE+-'])
        )
        check_reading(bytes(text))

    @given(
        st.from_regex(rb"[ ]?-?[0-9]{1,25}(\.[0-9]{0,25})?([eE][+-]?[0-9]{1,3})?", fullmatch=True)
    )
    def test_numbers_as_nobody_writes_them(self, data: bytes) -> None:
        check_reading(data)

    @given(st.floats(0, 1e300), st.integers(15, 40))
    def test_numbers_between_two_floats(self, low: float, digits: int) -> None:
        numerator, denominator = low.as_integer_ratio()
        above, below = math.nextafter(low, math.inf).as_integer_ratio()
        middle = (numerator * below + above * denominator) * 10**digits
        check_reading(f"{middle // (2 * denominator * below)}e-{digits}".encode())

    @given(st.text(st.sampled_from("\"\\/bfnrtu0dDeE18Aé\x7f\n😀'"), max_size=14))
    def test_escapes(self, text: str) -> None:
        check_reading(f'"{text}"'.encode())

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"NaN",
            b"[Infinity, -Infinity]",
            b"1e400",
            b"-0",
            b"-0.0",
            b"01",
            b"123456789012345678901234567890",
            b"9" * 4301,
            b'{"a": 1, "b": 2, "a": 3}',
            b'"\\ud83d"',
            b'"\\ud83d\\ude00"',
            b'"\\ude00\\ud83d"',
            b'"\xed\xa0\x80"',
            b"\xef\xbb\xbf1",
            b"\xff\xfe1\0",
            '"é"'.encode("utf-16"),
            b'{"a": 1} x',
            b"// a\n1",
            b"[" * 400 + b"]" * 400,
            b"[" * 200_000,
        ],
    )
    def test_what_libraries_disagree_about(self, data: bytes) -> None:
        check_reading(data)

    def test_text(self) -> None:
        assert read_json('{"a": "\ud800"}') == {"a": "\ud800"}


def check_writing(value: Any) -> None:
    expected = attempt(lambda value: json.dumps(value, indent=2).encode(), value)
    assert attempt(write_json, value) == expected
    assert attempt(lambda value: write_plainly(value).encode(), value) == expected


class Level(enum.IntEnum):
    HIGH = 3


class Colour(enum.Enum):
    RED = "red"


class Name(str):
    __slots__ = ()


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass
class Record:
    name: str


class TestWriting:
    @given(ANY_VALUE)
    def test_any_value(self, value: Any) -> None:
        check_writing(value)

    @given(USUAL_VALUE)
    def test_usual_values(self, value: Any) -> None:
        check_writing(value)

    @given(st.lists(FLOATS, min_size=1))
    def test_floats(self, value: list[float]) -> None:
        check_writing(value)
        check_writing(dict.fromkeys(map(str, value), value[0]))
        check_writing(value[0])

    @pytest.mark.parametrize("digits", ["1", "9.5", "1.2345678901234567", "9.999999999999999"])
    def test_floats_of_every_magnitude(self, digits: str) -> None:
        for exponent in range(-324, 308):
            number = float(f"{digits}e{exponent}")
            check_writing([number, -number, number / 3])

    @pytest.mark.parametrize(
        "value",
        [
            ["e-7", "1e-7", "1e-7,", "0.00001", "null", "\x7f", 1e-7],
            {"e-7": "0.00001,", "0.00001": 0.00001, "1e-7": 1e-7},
            [10.00001, 100.00001, -0.00001, 0.0000999, 1.00001],
            [{}, [], (), {"a": {}, "b": [[]]}],
            {0: 2, "0": 3, None: 4, True: 5, 1.5: 6},
            [Level.HIGH, Name("é"), Pair(1, 2)],
            Level.HIGH,
            [1, [Colour.RED]],
            {Colour.RED: 1},
            {Name("key"): 1},
            [uuid.UUID(int=1)],
            {"now": dt.datetime(2026, 1, 1)},  # noqa: DTZ001 - any date will do
            Record("a"),
            {1, 2},
            [b"bytes", bytearray(b"a"), memoryview(b"a")],
            [1j],
            [...],
            ["\ud800", "😀", "\u2028"],
            {"\ud800": "é"},
            10**400,
            [float("nan")],
        ],
        ids=lambda value: repr(value).partition(" at 0x")[0],
    )
    def test_what_libraries_disagree_about(self, value: Any) -> None:
        check_writing(value)

    def test_deep_values(self) -> None:
        value: list[Any] = []
        for _ in range(300):
            value = [value]
        check_writing(value)

    def test_a_loop_is_refused(self) -> None:
        value: list[Any] = []
        value.append(value)
        with pytest.raises((ValueError, RecursionError)):
            write_json(value)

    def test_scalars_of_numpy_are_what_they_are_to_the_standard_library(self) -> None:
        numpy = pytest.importorskip("numpy")
        check_writing({"float64": numpy.float64(0.1), "text": numpy.str_("a")})
        check_writing([numpy.float32(0.1)])
        check_writing([numpy.zeros(2)])
        check_writing([numpy.int64(1), numpy.bool_(True)])


def test_without_the_libraries_the_standard_one_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("msgspec", "msgspec.json", "orjson"):
        monkeypatch.setitem(sys.modules, name, None)
    spec = importlib.util.spec_from_file_location("alone", json_text.__file__)
    assert spec is not None
    assert spec.loader is not None
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert alone.read_json(b'{"a": [1, 2]}') == {"a": [1, 2]}
    assert alone.write_json({"a": [1, 1e-7]}) == b'{\n  "a": [\n    1,\n    1e-07\n  ]\n}'
