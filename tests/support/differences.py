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

BODY = ("body", "header content-length")


@dataclass(frozen=True, slots=True)
class Difference:
    """Fields of a reply (`Reply.comparable`), or of a description, and why they differ."""

    fields: tuple[str, ...]
    reason: str


DIFFERENCES: Mapping[str, Difference] = {
    "body-too-large": Difference(
        ("header connection",),
        "the rest of the body is not read, so the connection ends, and the client is told",
    ),
    "header-header-in-other-case": Difference(
        BODY,
        "a handler finds `X-One` also where the client, or a proxy on the way, wrote `x-one`",
    ),
    "header-connection-close": Difference(
        ("header connection",),
        "the connection does close, so the answer says so; TorchServe's says keep-alive",
    ),
    "worker-flood": Difference(
        BODY,
        "the message says what was too large, and the worker lives on",
    ),
    "worker-bad-header": Difference(
        ("status", "reason", "header content-type", "header connection", "header x-number", *BODY),
        "a header's value that is no text is written as text; TorchServe's worker dies of it",
    ),
    "control-not-an-archive": Difference(
        BODY,
        "the message says what is wrong with the file, not that it names no model",
    ),
    "control-list-after": Difference(
        BODY,
        "a model whose workers did not start is gone; TorchServe may keep it without workers",
    ),
    "control-customized-without-workers": Difference(
        ("header retry-after",),
        "whoever is refused for want of a worker is told when to come again",
    ),
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
