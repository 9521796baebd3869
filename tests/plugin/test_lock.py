"""Builds of a project that refers to weights: they need `mar.lock`, and take it along."""

from __future__ import annotations

import hashlib
import json
import zipfile
from typing import TYPE_CHECKING

from hatch_mar.archive.read import open_archive
from hatch_mar.weights.lockfile import LOCK_NAME, Lock, LockedFile, render_lock
from tests.support.builds import only, run, sdist_names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import ProjectMaker

SHA = hashlib.sha256(b"weights").hexdigest()
INDEX = "https://models.invalid/net/m.safetensors.index.json"
SHARDS = ("m-1.safetensors", "m-2.safetensors")
"""Nobody answers at that name, and a build asks nobody."""


def write_lock(project: Path) -> None:
    shards = [
        LockedFile(
            target=name,
            source=f"https://models.invalid/net/{name}",
            resolved=f"https://models.invalid/net/{name}",
            size=7,
            sha256=SHA,
        )
        for name in SHARDS
    ]
    index = LockedFile(
        target="m.safetensors.index.json",
        source=INDEX,
        resolved=INDEX,
        size=20,
        sha256=SHA,
        names=SHARDS,
    )
    big = LockedFile(
        target="big.pt",
        source="runs/big.pt",
        resolved="s3://bucket/big.pt?versionId=v2",
        size=500,
        sha256=SHA,
        mirrors=("s3://bucket/big.pt",),
    )
    (project / LOCK_NAME).write_text(render_lock(Lock(files=(index, big, *shards))))


MAR = f"""\
handler = "handler.py:handle"
weights = ["{INDEX}", {{ source = "runs/big.pt", mirrors = ["s3://bucket/big.pt"] }}]
wheel.embed-limit = "400 B"
"""


def test_an_unlocked_reference_stops_the_build_with_the_command_to_run(
    refused: Build, make_project: ProjectMaker
) -> None:
    project = make_project(mar=MAR, files={"runs/big.pt": bytes(500)})
    for target in ("wheel", "sdist", "mar"):
        said = refused(project, target)
        assert "hatch-mar: 2 problems" in said
        assert "tool.mar.weights[0]" in said
        assert "tool.mar.weights[1].source" in said
        assert said.count("run `hatch-mar lock`") == 2


def test_a_locked_one_is_sealed(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(mar=MAR, files={"runs/big.pt": bytes(500)})
    write_lock(project)
    said = build(project)
    assert "m.safetensors.index.json: by reference, for its source is a URI" in said
    with open_archive(only(project / "dist", "*.mar")) as archive:
        assert archive.seal is not None
        references = {each.target: each for each in archive.seal.references}
    assert set(references) == {"m.safetensors.index.json", "big.pt", *SHARDS}
    assert references["big.pt"].source == "s3://bucket/big.pt?versionId=v2"
    assert references["m-1.safetensors"].size == 7
    with zipfile.ZipFile(only(project / "dist", "*.whl")) as wheel:
        (name,) = (name for name in wheel.namelist() if name.endswith("SEAL.json"))
        assert len(json.loads(wheel.read(name))["references"]) == 4


def test_the_sdist_holds_it_and_builds_the_same_wheel(
    build: Build, make_project: ProjectMaker
) -> None:
    """It does not hold what is referred to, which may be far too big."""
    project = make_project(mar=MAR, files={"runs/big.pt": bytes(500)})
    write_lock(project)
    with (project / "pyproject.toml").open("a") as file:
        file.write('\n[tool.hatch.build.targets.sdist]\nonly-include = ["pyproject.toml"]\n')
    build(project, "sdist", "wheel")
    sdist = only(project / "dist", "*.tar.gz")
    assert sdist_names(sdist) == {"PKG-INFO", "handler.py", LOCK_NAME, "pyproject.toml"}
    elsewhere = project.parent / "elsewhere"
    elsewhere.mkdir()
    run("tar", "-xzf", sdist, "-C", elsewhere)
    unpacked = only(elsewhere, "*")
    build(unpacked)
    for pattern in ("*.whl", "*.mar"):
        mine, theirs = only(project / "dist", pattern), only(unpacked / "dist", pattern)
        assert mine.read_bytes() == theirs.read_bytes()
