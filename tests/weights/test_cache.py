from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_mar.errors import WeightsError
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.digest import hash_file
from hatch_mar.weights.reference import Reference
from hatch_mar.weights.uri import is_local, redact

SHA256 = "ab" * 32


def test_the_variable_names_the_directory(tmp_path: Path) -> None:
    assert Cache(environ={"HATCH_MAR_CACHE_DIR": str(tmp_path)}).directory == tmp_path


def test_without_it_the_platform_does() -> None:
    assert Cache(environ={}).directory == platformdirs.user_cache_path("hatch-mar")


def test_files_are_found_by_digest(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.path_of(SHA256) == tmp_path / "sha256" / "ab" / SHA256
    reference = Reference(target="w", source="/w", sha256=SHA256)
    assert not cache.has(reference)
    cache.path_of(SHA256).parent.mkdir(parents=True)
    cache.path_of(SHA256).write_bytes(b"abc")
    assert cache.has(reference)
    assert cache.has(Reference(target="w", source="/w", sha256=SHA256, size=3))
    assert not cache.has(Reference(target="w", source="/w", sha256=SHA256, size=4))


def test_a_file_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert hash_file(tmp_path / "f") == (hashlib.sha256(b"abc").hexdigest(), 3)


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("https://user:key@host/w.pt?X-Signature=s#f", "https://host/w.pt"),
        ("/data/w.pt", "/data/w.pt"),
        ("file:///data/w.pt", "file:///data/w.pt"),
        ("hf://org/repo@main/w.pt", "hf://org/repo@main/w.pt"),
        ("https://key@[x/w.pt", "a source that is not a URL"),
    ],
)
def test_secrets_are_not_shown(source: str, shown: str) -> None:
    assert redact(source) == shown


@pytest.mark.parametrize(
    ("source", "local"),
    [("/w", True), ("file:///w", True), ("http://h/w", False), ("https://[x/w", False)],
)
def test_what_opens_a_socket(source: str, local: bool) -> None:
    assert is_local(source) is local


references = st.builds(
    Reference,
    target=st.text(),
    source=st.text(),
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    size=st.none() | st.integers(0),
    mirrors=st.lists(st.text()).map(tuple),
)


@given(references)
def test_a_reference_survives_the_seal(reference: Reference) -> None:
    assert Reference.from_dict(reference.as_dict()) == reference


def test_fetching_costs_nothing_until_it_is_done() -> None:
    """The extras are imported by those who fetch, and by nobody else."""
    code = (
        "import sys, hatch_mar.weights.fetch\n"
        "extras = {'fsspec', 'aiohttp', 'urllib3', 'filelock', 'platformdirs', 'asyncio'}\n"
        "print(*extras & set(sys.modules))"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=root, text=True).strip() == ""


def test_a_home_that_nobody_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user is only a number."""
    with pytest.raises(WeightsError, match=r"^HATCH_MAR_CACHE_DIR is '~nobody-at-all/c', and nob"):
        Cache(environ={"HATCH_MAR_CACHE_DIR": "~nobody-at-all/c"})
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda *_, **__: Path("~/.cache/x"))
    with pytest.raises(WeightsError, match=r"^you have no home directory; set HATCH_MAR_CACHE_DIR"):
        Cache(environ={})
