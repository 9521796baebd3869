"""`handler.model_path` of a file that the archive refers to: where it leads here, and in a copy."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.export import embed, export_archive
from hatch_mar.archive.modelpath import lead_inside
from hatch_mar.archive.read import open_archive
from hatch_mar.archive.write import write_archive
from hatch_mar.cli.verdict import our_server
from hatch_mar.project.proof import prove
from hatch_mar.serve.rundir import make_root, prepare, remove_rundirs
from hatch_mar.weights.cache import Cache
from hatch_mar.weights.lockfile import LockedFile
from hatch_mar.weights.reference import Reference
from tests.project.scratch import FUNCTION_HANDLER, Scratch

if TYPE_CHECKING:
    from pathlib import Path

    from hatch_mar.archive.plan import Plan

DATA = b"weights"
SHA = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A file on a disk that servers share."""
    path = tmp_path / "net.pt"
    path.write_bytes(DATA)
    return path


@pytest.fixture
def plan(tmp_path: Path, shared: Path) -> Plan:
    """A model whose configuration alone says where its weights are."""
    root = tmp_path / "project"
    root.mkdir()
    project = Scratch(root)
    project.write({"handler.py": FUNCTION_HANDLER})
    config = f"handler:\n  model_path: {shared}\n  threshold: 0.5\n"
    project.write({"model-config.yaml": config})
    project.configure("")
    project.lock(
        LockedFile(target="net.pt", source=str(shared), resolved=str(shared), size=7, sha256=SHA)
    )
    return project.plan()


def test_a_server_is_told_the_place_of_the_verified_file(plan: Plan, tmp_path: Path) -> None:
    write_archive(plan, tmp_path / "m.mar")
    root = make_root(tmp_path)
    try:
        with open_archive(tmp_path / "m.mar") as archive:
            deployment = prepare(archive, root=root, cache=Cache(tmp_path / "cache"))
        assert deployment.config.raw == {"handler": {"model_path": "net.pt", "threshold": 0.5}}
        assert (deployment.directory / "net.pt").read_bytes() == DATA
    finally:
        remove_rundirs(root)


def test_torchserve_finds_it_on_its_disk(plan: Plan, tmp_path: Path) -> None:
    write_archive(plan, tmp_path / "m.mar")
    with open_archive(tmp_path / "m.mar") as archive:
        proof = prove(archive, our_server())
    assert (proof.problems, proof.not_here, proof.not_stock) == ([], [], [])


@pytest.mark.parametrize("way", ["planned", "exported"])
def test_a_copy_that_carries_it_needs_no_disk(
    plan: Plan, shared: Path, tmp_path: Path, way: str
) -> None:
    (reference,) = plan.references
    if way == "planned":
        path = tmp_path / "copy.mar"
        write_archive(embed(plan, {reference: shared}), path)
    else:
        write_archive(plan, tmp_path / "m.mar")
        (tmp_path / "out").mkdir()
        with open_archive(tmp_path / "m.mar") as archive:
            path = export_archive(archive, tmp_path / "out", embedded={reference: shared})
    with open_archive(path) as archive:
        assert archive.seal is not None
        for name, digest in archive.seal.members.items():
            assert digest.sha256 == hashlib.sha256(archive.read(name)).hexdigest()
        assert archive.seal.references == ()
        assert archive.read("net.pt") == DATA
        assert archive.config == {"handler": {"model_path": "net.pt", "threshold": 0.5}}
        assert archive.manifest.serialized_file == "net.pt"


@pytest.mark.parametrize(
    "raw",
    [{}, {"handler": None}, {"handler": {"model_path": 3}}, {"handler": {"model_path": "other"}}],
)
def test_what_names_no_reference_stays_as_it_is(raw: dict[str, object]) -> None:
    reference = Reference(target="net.pt", source="/mnt/net.pt", sha256=SHA)
    assert lead_inside(raw, [reference]) is raw
