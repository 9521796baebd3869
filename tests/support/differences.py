"""Everything that we mean to do differently from TorchServe, each with its reason.

A test that compares the two leaves out the fields named here and demands that they differ: what has
become equal has no place in this table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.exchange import Reply


@dataclass(frozen=True, slots=True)
class Difference:
    """Fields of a reply (`Reply.comparable`), or of a description, and why they differ."""

    fields: tuple[str, ...]
    reason: str


DIFFERENCES: Mapping[str, Difference] = {
    "description": Difference(
        ("maxBatchDelay",),
        "a batch delay of 0 unless the author set one: nobody waits for a batch to fill",
    ),
}


def assert_same_reply(case: str, theirs: Reply, ours: Reply) -> None:
    """Compare the replies field by field, but for what the table says of `case`."""
    assert_same(case, theirs.comparable(), ours.comparable())


def assert_same(case: str, theirs: Mapping[str, object], ours: Mapping[str, object]) -> None:
    """Compare `{field: value}` of both, but for what the table says of `case`."""
    meant = DIFFERENCES[case].fields if case in DIFFERENCES else ()
    expected = {field: value for field, value in theirs.items() if field not in meant}
    assert {field: value for field, value in ours.items() if field not in meant} == expected
    equal = [field for field in meant if theirs.get(field) == ours.get(field)]
    assert not equal, f"the table calls {equal} of {case!r} different: they are equal now"
