"""`mar.lock` as a file: what is written is read back, and everything else is told."""

from __future__ import annotations

import json
import string
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.archive.names import find_flaw
from hatch_mar.errors import ProblemsError
from hatch_mar.weights.lockfile import Lock, LockedFile, parse_lock, read_lock, render_lock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE = LockedFile(
    target="nets/net.safetensors",
    source="hf://org/net@main/net.safetensors",
    resolved=f"hf://org/net@{'1' * 40}/net.safetensors",
    size=7,
    sha256="ab" * 32,
    mirrors=("https://mirror.example/net.safetensors", "/mnt/net.safetensors"),
)
INDEX = LockedFile(
    target="a.safetensors.index.json",
    source="https://example.org/a.safetensors.index.json",
    resolved="https://example.org/a.safetensors.index.json",
    size=0,
    sha256="cd" * 32,
    names=("nets/net.safetensors",),
)
WRITTEN = f"""\
# The weights that [tool.mar] refers to, and which bytes they are.
# Written by `hatch-mar lock`: commit this file, and change it with that command alone.
version = 1

[[weights]]
target = "a.safetensors.index.json"
source = "https://example.org/a.safetensors.index.json"
resolved = "https://example.org/a.safetensors.index.json"
size = 0
sha256 = "{"cd" * 32}"
names = [
    "nets/net.safetensors",
]

[[weights]]
target = "nets/net.safetensors"
source = "hf://org/net@main/net.safetensors"
resolved = "hf://org/net@{"1" * 40}/net.safetensors"
size = 7
sha256 = "{"ab" * 32}"
mirrors = [
    "https://mirror.example/net.safetensors",
    "/mnt/net.safetensors",
]
"""


def test_it_is_written_for_people_who_read_differences() -> None:
    assert render_lock(Lock(files=(FILE, INDEX))) == WRITTEN


def test_a_lock_of_nothing() -> None:
    assert parse_lock(render_lock(Lock())) == Lock()


def test_no_file_is_a_lock_of_nothing(tmp_path: Path) -> None:
    assert read_lock(tmp_path / "mar.lock") == Lock()


VERSION = "version = 1\n"
texts = st.text(st.characters(exclude_categories=["Cs"]))
names = texts.filter(lambda name: find_flaw(name) is None)
paths = texts.filter(lambda path: "\0" not in path).map(lambda path: f"/{path}")
files = st.builds(
    LockedFile,
    target=names,
    source=texts,
    resolved=st.one_of(
        paths,
        st.text(string.ascii_letters, min_size=1).map(lambda path: f"https://h.example/{path}"),
    ),
    size=st.integers(0, 2**63 - 1),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    mirrors=st.lists(paths).map(tuple),
    names=st.lists(texts.map(lambda name: f"{name}/")).map(tuple),
)


@given(st.lists(files, unique_by=lambda file: file.target))
def test_what_is_written_is_read_back(found: list[LockedFile]) -> None:
    text = render_lock(Lock(files=tuple(found)))
    read = parse_lock(text)
    assert read.files == tuple(sorted(found, key=lambda file: file.target))
    assert render_lock(read) == text
    assert tomllib.loads(text)["version"] == 1


def test_files_are_found_by_their_targets() -> None:
    lock = Lock(files=(FILE, INDEX))
    assert lock.find(FILE.target) == FILE
    assert lock.find("other") is None
    assert list(lock.named_by(INDEX)) == [FILE]
    assert list(Lock(files=(INDEX,)).named_by(INDEX)) == []


def entry(**changes: Any) -> str:
    """Return the text of a lock with one entry; a change to None takes a key out."""
    values: Mapping[str, Any] = {
        "target": "net.pt",
        "source": "https://example.org/net.pt",
        "resolved": "https://example.org/net.pt",
        "size": 7,
        "sha256": "ab" * 32,
        **changes,
    }
    lines = (f"{key} = {json.dumps(each)}" for key, each in values.items() if each is not None)
    return "\n".join(["[[weights]]", *lines])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("version = 2\n", "version: is 2: this hatch-mar reads 1; upgrade hatch-mar"),
        ("version = 0\n", "version: is 0, not 1; restore it, or remove it and run"),
        ("version = true\n", "version: is True, not 1"),
        ("", "version: is missing; restore it, or remove it and run `hatch-mar lock`"),
        ("version = 1\nversoin = 2\n", "versoin: unknown key"),
        ("version = 1\nweights = 3\n", "weights: must be an array of tables"),
        ("version = 1\nweights = [3]\n", "weights[0]: must be a table"),
        ("version = ", "is not TOML: "),
        (f"version = {'[' * 5000}", "is not TOML: "),
        (VERSION + entry(target=None), "weights[0].target: is missing"),
        (VERSION + entry(target=1), "weights[0].target: must be a string, not 1"),
        (VERSION + entry(target="../x"), "weights[0].target: '../x' holds an empty"),
        (VERSION + entry(resolved="net.pt"), "weights[0].resolved: 'net.pt' is not an"),
        (
            VERSION + entry(resolved="https://:word@"),
            "weights[0].resolved: 'https://' is not a URL: it names no server",
        ),
        (VERSION + entry(size=-1), "weights[0].size: must be a number of bytes, not -1"),
        (VERSION + entry(size=True), "weights[0].size: must be a number of bytes"),
        (VERSION + entry(size=None), "weights[0].size: is missing"),
        (VERSION + entry(sha256="AB"), "weights[0].sha256: 'AB' is not a sha256"),
        (VERSION + entry(mirrors="x"), "weights[0].mirrors: must be an array of strings"),
        (VERSION + entry(names=[1]), "weights[0].names: must be an array of strings"),
        (VERSION + entry(sise=1), "weights[0].sise: unknown key"),
        (
            f"{VERSION}{entry()}\n{entry()}",
            "weights[1].target: 'net.pt' is that of weights[0] too; keep one",
        ),
        (
            "version = 1\n<<<<<<< HEAD\n=======\n>>>>>>> theirs\n",
            "holds the marks of a merge conflict; keep either side, and run `hatch-mar lock`",
        ),
        ("version = 1\r\n=======\r\n", "holds the marks of a merge conflict"),
    ],
)
def test_one_mistake_one_problem(text: str, problem: str) -> None:
    with pytest.raises(ProblemsError) as caught:
        parse_lock(text)
    (found,) = caught.value.problems
    assert str(found).startswith(f"mar.lock: {problem}")


def test_all_mistakes_come_at_once() -> None:
    wrong = entry(size=None, sha256="3")
    with pytest.raises(ProblemsError) as caught:
        parse_lock(f"{VERSION}{wrong}\n{entry(target='b', x=1)}")
    assert [problem.key for problem in caught.value.problems] == [
        "weights[0].size",
        "weights[0].sha256",
        "weights[1].x",
    ]


@pytest.mark.parametrize(
    ("content", "problem"), [(b"\xff", "is not UTF-8"), (None, "cannot be read: Is a directory")]
)
def test_what_cannot_be_read(tmp_path: Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "mar.lock"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content)
    with pytest.raises(ProblemsError) as caught:
        read_lock(path)
    assert str(caught.value.problems[0]).startswith(f"mar.lock: {problem}")
