"""Golden examples: what a model is asked, and must answer, before it may call itself ready."""

from __future__ import annotations

import os.path
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from hatch_mar.archive.seal import EXAMPLES_DIRECTORY, Example
from hatch_mar.project.spec import Entry

if TYPE_CHECKING:
    from hatch_mar.project.document import KeyPath
    from hatch_mar.project.reading import Reading
    from hatch_mar.project.table import ExampleTable

CONTENT_TYPES = {
    ".bmp": "image/bmp",
    ".csv": "text/csv",
    ".flac": "audio/flac",
    ".gif": "image/gif",
    ".html": "text/html",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".txt": "text/plain",
    ".wav": "audio/wav",
    ".webp": "image/webp",
    ".xml": "application/xml",
    ".zip": "application/zip",
}
"""Our own table: the machine's would make a build depend on the machine."""
UNKNOWN = "application/octet-stream"


def resolve_examples(
    reading: Reading,
) -> tuple[tuple[Example, ...], tuple[Path, ...], tuple[Entry, ...]]:
    """Return the examples as the seal lists them, the files of their answers, and all files."""
    found: list[tuple[ExampleTable, Path, Path]] = []
    for key, table in reading.entries("examples", reading.table.examples):
        request = reading.find_file((*key, "input"), table.input)
        answer = _find_answer(reading, (*key, "output"), table.output)
        for path in (request, None if reading.unanswered else answer):
            if path is not None and path.suffix == ".json":
                reading.json(path)
        if request is not None and answer is not None:
            found.append((table, request, answer))
    files = dict.fromkeys(path for _, *paths in found for path in paths)
    if not files:
        return (), (), ()
    base = os.path.commonpath([path.parent for path in files])
    names = {path: f"{EXAMPLES_DIRECTORY}/{path.relative_to(base).as_posix()}" for path in files}
    examples = tuple(
        Example(
            input=names[request],
            output=names[answer],
            content_type=table.content_type or guess_content_type(request.name),
            rtol=table.rtol,
            atol=table.atol,
            policy=table.policy,
        )
        for table, request, answer in found
    )
    entries = tuple(
        Entry(name, path if path.is_file() else b"", "examples") for path, name in names.items()
    )
    return examples, tuple(answer for *_, answer in found), entries


def _find_answer(reading: Reading, key: KeyPath, text: str) -> Path | None:
    """Return the file of an answer, which need not be there if it is about to be written."""
    path = reading.place(key, text)
    if not reading.unanswered and path is not None and path.parent.is_dir() and not _is_there(path):
        reading.complain(
            key, f"'{text}' {reading.why_missing(text)}; `hatch-mar check --bless` can write it"
        )
        return None
    if not reading.unanswered:
        return reading.find_file(key, text)
    if path is not None and path.exists() and not path.is_file():
        reading.complain(key, f"'{text}' is not a file")
        return None
    return path


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def guess_content_type(name: str) -> str:
    """Return the content type of a file by its suffix."""
    return CONTENT_TYPES.get(PurePosixPath(name).suffix.lower(), UNKNOWN)
