"""What the build hook puts into a wheel."""

from __future__ import annotations

import csv
import hashlib
import io
import stat
import zipfile
from base64 import urlsafe_b64encode
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.read import open_archive
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.fetch import fetch
from tests.support.builds import only, wheel_entry_points, wheel_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import Celsius, ProjectMaker

DIST_INFO = {"METADATA", "RECORD", "WHEEL", "entry_points.txt"}


def test_a_project_without_a_package_gets_the_generated_one(build: Build, shout: Path) -> None:
    build(shout)
    model = {"handler.py", "model-config.yaml", "words/loud.txt"}
    assert wheel_names(only(shout / "dist", "*.whl")) == {
        "shout_mar/__init__.py",
        "shout_mar/__main__.py",
        *(f"shout_mar/model/{name}" for name in model),
        "shout_mar/model/MAR-INF/MANIFEST.json",
        "shout_mar/model/MAR-INF/SEAL.json",
        "shout-0.3.dist-info/sboms/shout_mar.cdx.json",
        *(f"shout-0.3.dist-info/{name}" for name in DIST_INFO),
    }


def test_a_projects_own_package_keeps_every_file_that_the_model_has_too(
    build: Build, colours: Path
) -> None:
    build(colours)
    own = {f"colours/{name}" for name in ("__init__.py", "naming.py", "service.py")}
    names = wheel_names(only(colours / "dist", "*.whl"))
    assert own <= names
    assert {f"colour_names_mar/model/{name}" for name in own} <= names
    assert "colour_names_mar/model/palette.json" in names


def test_the_unpacked_model_is_the_archive(build: Build, colours: Path) -> None:
    build(colours)
    with (
        open_archive(only(colours / "dist", "*.whl")) as wheel,
        open_archive(only(colours / "dist", "*.mar")) as mar,
    ):
        assert {name: wheel.read(name) for name in wheel.names()} == {
            name: mar.read(name) for name in mar.names()
        }
        assert mar.manifest.model_version == "1.2.dev3"
        assert mar.path.name == "colours-1.2.dev3.mar"


def test_the_record_is_right(build: Build, make_project: ProjectMaker) -> None:
    big = bytes(range(256)) * (8 * 4096)
    project = make_project(
        mar='handler = "handler.py:handle"\nweights = "big.bin"', files={"big.bin": big}
    )
    build(project)
    with zipfile.ZipFile(only(project / "dist", "*.whl")) as wheel:
        names = wheel.namelist()
        rows = list(csv.reader(io.StringIO(wheel.read(names[-1]).decode())))
        assert names[-1].endswith(".dist-info/RECORD")
        assert [row[0] for row in rows] == names
        for name, digest, size in rows[:-1]:
            data = wheel.read(name)
            found = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            assert (f"sha256={found}", str(len(data))) == (digest, size)


@pytest.mark.parametrize(
    ("size", "method"),
    [(8 * 1024 * 1024, zipfile.ZIP_STORED), (8 * 1024 * 1024 - 1, zipfile.ZIP_DEFLATED)],
)
def test_big_members_are_stored(
    build: Build, make_project: ProjectMaker, size: int, method: int
) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\nweights = "big.bin"', files={"big.bin": bytes(size)}
    )
    build(project)
    with zipfile.ZipFile(only(project / "dist", "*.whl")) as wheel:
        assert wheel.getinfo("demo_mar/model/big.bin").compress_type == method
    with open_archive(only(project / "dist", "*.whl")) as archive:
        assert archive.size("big.bin") == size


def test_only_programs_may_be_executed(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(
        mar='handler = "handler.py:handle"\nextra-files = ["tools/*"]',
        files={"tools/run": "#!/bin/sh\n", "tools/data": ""},
    )
    (project / "tools" / "run").chmod(0o700)
    build(project)
    with zipfile.ZipFile(only(project / "dist", "*.whl")) as wheel:
        modes = {
            name: stat.S_IMODE(wheel.getinfo(f"demo_mar/model/{name}").external_attr >> 16)
            for name in ("tools/run", "tools/data", "MAR-INF/SEAL.json")
        }
    assert modes == {"tools/run": 0o755, "tools/data": 0o644, "MAR-INF/SEAL.json": 0o644}


def test_it_is_for_any_python_3(build: Build, make_project: ProjectMaker) -> None:
    project = make_project()
    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('requires-python = ">=3.11"\n', ""))
    build(project)
    assert only(project / "dist", "*.whl").name == "demo-1.0-py3-none-any.whl"


def test_the_author_may_tag_it(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(mar='handler = "handler.py:handle"\nwheel.tag = "py3-none-linux_x86_64"')
    build(project)
    wheel = only(project / "dist", "*.whl")
    assert wheel.name == "demo-1.0-py3-none-linux_x86_64.whl"
    with zipfile.ZipFile(wheel) as archive:
        assert b"Root-Is-Purelib: false" in archive.read("demo-1.0.dist-info/WHEEL")


def test_dynamic_fields_are_filled_in_by_the_build_hook(build: Build, shout: Path) -> None:
    build(shout)
    assert wheel_entry_points(only(shout / "dist", "*.whl")) == {
        "console_scripts": {"serve-shout": "shout_mar.__main__:main"},
        "hatch_mar.models": {"shout": "shout_mar"},
    }


def test_what_the_author_wrote_down_is_enough(build: Build, colours: Path) -> None:
    build(colours)
    assert wheel_entry_points(only(colours / "dist", "*.whl")) == {
        "console_scripts": {
            "name-colour": "colours.naming:main",
            "serve-colours": "colour_names_mar.__main__:main",
        },
        "hatch_mar.models": {"colours": "colour_names_mar"},
    }


def test_a_model_may_do_without_a_program(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(mar='handler = "handler.py:handle"\nwheel.script = false')
    build(project)
    found = wheel_entry_points(only(project / "dist", "*.whl"))
    assert found == {"hatch_mar.models": {"demo": "demo_mar"}}


def test_two_builds_are_the_same_bytes(build: Build, shout: Path) -> None:
    build(shout)
    first = only(shout / "dist", "*.whl").read_bytes()
    (shout / "handler.py").touch()
    build(shout)
    assert only(shout / "dist", "*.whl").read_bytes() == first


def test_no_scratch_files_stay(build: Build, shout: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    build(shout, TMPDIR=str(tmp_path / "scratch"))
    assert list((tmp_path / "scratch").iterdir()) == []
    assert {path.name for path in (shout / "dist").iterdir()} == {
        "shout-0.3-py3-none-any.whl",
        "shout-0.3.mar",
    }


def test_without_the_hooks_there_is_no_model(build: Build, colours: Path) -> None:
    build(colours, HATCH_BUILD_NO_HOOKS="1")
    names = wheel_names(only(colours / "dist", "*.whl"))
    assert not [name for name in names if name.startswith("colour_names_mar")]
    assert not list((colours / "dist").glob("*.mar"))


def test_weights_that_are_elsewhere_stay_there(
    build: Build, celsius: Celsius, tmp_path: Path
) -> None:
    build(celsius.project)
    assert celsius.requests == []
    wheel = only(celsius.project / "dist", "*.whl")
    assert "celsius_mar/model/celsius.pt" not in wheel_names(wheel)
    with open_archive(wheel) as archive:
        assert archive.seal is not None
        (reference,) = archive.seal.references
    fetched = fetch(reference, Cache(tmp_path / "cache"))
    assert fetched.read_bytes() == celsius.weights
