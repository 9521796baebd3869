"""Request ids are UUIDs of version 4."""

from __future__ import annotations

import uuid

from hatch_mar.api.request_ids import next_request_id


def test_ids_are_random_uuids_and_never_repeat() -> None:
    texts = [next_request_id() for _ in range(2000)]
    assert len(set(texts)) == len(texts)
    for text in texts:
        value = uuid.UUID(text)
        assert str(value) == text
        assert value.version == 4
        assert value.variant == uuid.RFC_4122
