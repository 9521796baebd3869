"""Models that pip installed, found by name."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.editable import MAP_NAME, Source, Tarball, make_map
from hatch_mar.archive.installed import find_model_directory, installed_models, open_installed
from hatch_mar.archive.manifest import MANIFEST_NAME, Manifest
from hatch_mar.archive.plan import Member, Plan
from hatch_mar.archive.seal import Example, Seal
from hatch_mar.archive.write import write_archive
from hatch_mar.errors import ArchiveError, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of installed packages that this process sees."""
    path = tmp_path / "site-packages"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    return path


@pytest.fixture
def announce(site: Path) -> Callable[[str, str], Path]:
    """Install a distribution that names a model's package, and return the package's directory."""

    def announce(name: str, package: str) -> Path:
        dist_info = site / f"{package}-1.0.dist-info"
        dist_info.mkdir()
        (dist_info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        (dist_info / "entry_points.txt").write_text(f"[hatch_mar.models]\n{name} = {package}\n")
        (site / package).mkdir()
        (site / package / "__init__.py").write_text("raise RuntimeError('imported')\n")
        return site / package

    return announce


def manifest(name: str) -> Manifest:
    return Manifest(model_name=name, model_version="1.0", handler="handler.py")


def unpacked(package: Path, name: str) -> None:
    plan = Plan(
        name=name,
        version="1.0",
        manifest=manifest(name),
        members=(Member("handler.py", b"x = 1\n"),),
        runtime="custom",
        format="dir",
    )
    write_archive(plan, package / "model")


@pytest.mark.parametrize("asked", ["demo", "demo_mar"])
def test_a_model_is_found_by_its_name_and_by_its_package(
    announce: Callable[[str, str], Path], asked: str
) -> None:
    unpacked(announce("demo", "demo_mar"), "demo")
    with open_installed(asked) as archive:
        assert archive.manifest.model_name == "demo"
        assert archive.seal is not None
        assert archive.read("handler.py") == b"x = 1\n"


def test_all_models_are_listed(announce: Callable[[str, str], Path]) -> None:
    announce("one", "one_mar")
    announce("two", "two_mar")
    assert set(installed_models()) >= {("one", "one_mar"), ("two", "two_mar")}


def test_an_unknown_name_is_told_the_known_ones(announce: Callable[[str, str], Path]) -> None:
    announce("digits", "digits_mar")
    with pytest.raises(TargetError, match=r"^digit: no such model.*\(installed: .*digits"):
        open_installed("digit")


def test_any_package_will_not_do() -> None:
    with pytest.raises(TargetError, match=r"^json: no such model is installed"):
        open_installed("json")


def test_two_packages_of_one_name_are_told_apart_by_package(
    announce: Callable[[str, str], Path],
) -> None:
    unpacked(announce("demo", "a_mar"), "demo")
    announce("demo", "b_mar")
    with pytest.raises(TargetError, match="more than one package has this name: a_mar, b_mar"):
        open_installed("demo")
    with open_installed("a_mar") as archive:
        assert archive.manifest.model_name == "demo"


def test_a_package_whose_files_are_gone(announce: Callable[[str, str], Path]) -> None:
    package = announce("demo", "demo_mar")
    (package / "__init__.py").unlink()
    package.rmdir()
    with pytest.raises(TargetError, match="its package 'demo_mar' cannot be found"):
        open_installed("demo")


def test_a_damaged_installation(announce: Callable[[str, str], Path]) -> None:
    package = announce("demo", "demo_mar")
    unpacked(package, "demo")
    (package / "model" / "handler.py").unlink()
    with pytest.raises(ArchiveError, match=r"handler\.py: is in the seal, but not in the archive"):
        open_installed("demo")


def test_what_an_editable_installation_says_is_what_the_source_tree_has(
    announce: Callable[[str, str], Path], tmp_path: Path
) -> None:
    package = announce("demo", "demo_mar")
    source = tmp_path / "handler.py"
    source.write_text("x = 1\n")
    example = Example(input="a", output="b", content_type="text/plain")
    seal = Seal(name="demo", version="1.0", runtime="custom", members={}, examples=(example,))
    members: dict[str, Source] = {
        "handler.py": source,
        "noise.bin": b"\xff\x00",
        "sources.tar": Tarball({"handler.py": source, "b": b"b"}, gzip=False),
        MANIFEST_NAME: manifest("demo").to_json(),
    }
    (package / MAP_NAME).write_bytes(make_map(members, seal))
    source.write_text("x = 2\n")
    with open_installed("demo") as archive:
        assert archive.kind == "editable"
        assert archive.names() == sorted(members)
        assert archive.read("handler.py") == b"x = 2\n"
        assert archive.read("noise.bin") == b"\xff\x00"
        assert b"x = 2\n" in archive.read("sources.tar")
        assert archive.seal == seal
        assert archive.warnings == []


def test_an_editable_installation_whose_source_is_gone(
    announce: Callable[[str, str], Path], tmp_path: Path
) -> None:
    package = announce("demo", "demo_mar")
    seal = Seal(name="demo", version="1.0", runtime="custom", members={})
    (package / MAP_NAME).write_bytes(make_map({"handler.py": tmp_path / "gone.py"}, seal))
    with pytest.raises(ArchiveError, match=r"gone\.py: no such file; install the project again"):
        open_installed("demo")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        ('{"schema": 99}', "this hatch-mar reads schema 1"),
        ('{"schema": 1, "members": {"a": {"link": "b"}}, "seal": ""}', "'a' is neither a file"),
        ('{"schema": 1, "members": {}, "seal": "{}"}', "not a seal"),
    ],
)
def test_a_broken_map(announce: Callable[[str, str], Path], content: str, said: str) -> None:
    package = announce("demo", "demo_mar")
    (package / MAP_NAME).write_text(content)
    with pytest.raises(ArchiveError, match=said):
        open_installed("demo")


def test_an_editable_installation_has_no_directory_to_export(
    announce: Callable[[str, str], Path],
) -> None:
    package = announce("demo", "demo_mar")
    (package / MAP_NAME).write_text("{}")
    with pytest.raises(TargetError, match="editable mode; build its archive: hatch build -t mar"):
        find_model_directory("demo")


def test_looking_for_models_loads_nothing_heavy() -> None:
    code = "import sys, hatch_mar.archive.installed; print('\\n'.join(sys.modules))"
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert not {"torch", "numpy", "pydantic", "hatchling", "asyncio"} & set(found)
