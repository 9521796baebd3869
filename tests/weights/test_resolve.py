"""Sources that have one form only: `resolve` gives them back, with their size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.weights.stores import resolve
from hatch_mar.weights.stores.protocol import Resolved

if TYPE_CHECKING:
    from pathlib import Path


def test_a_file_is_itself(tmp_path: Path) -> None:
    path = tmp_path / "w 1.pt"
    path.write_bytes(b"abc")
    for source in (str(path), path.as_uri()):
        assert resolve(source) == Resolved(source=source, size=3, sha256=None)


def test_a_url_is_itself(site: Any) -> None:
    source = site("/w.pt", b"abc")
    assert resolve(source) == Resolved(source=source, size=3, sha256=None)


def test_an_empty_answer_has_no_bytes(site: Any) -> None:
    assert resolve(site("/w.pt", b"")).size == 0


def test_a_server_that_does_not_say_how_much(site: Any) -> None:
    source = site("/w.pt", b"abc")
    site.fail(headers={"Content-Encoding": "identity"})
    assert resolve(source).source == source


def test_what_is_missing_is_said(site: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="404"):
        resolve(site.url + "/gone")
    with pytest.raises(FileNotFoundError):
        resolve(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("ftp://host/w.pt", "no store reads 'ftp' sources; known are az, file, gs, hf, http"),
        ("s3://bucket", "names no object; write s3://BUCKET/KEY"),
    ],
)
def test_what_cannot_be_is_not_asked_for(source: str, message: str) -> None:
    with pytest.raises(OSError, match=message):
        resolve(source)
