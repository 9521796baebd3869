"""`hatch-mar export`: the archive, from whatever holds the model."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.read import open_archive
from hatch_mar.errors import ArchiveError, OfflineError, TargetError, WeightsError
from hatch_mar.weights.reference import Reference
from tests.support.archives import write_mar
from tests.support.builds import SAMPLE_PROJECT, Environment, make_environment, run
from tests.support.commands import WEIGHTS, write_referring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.builds import ProjectMaker
    from tests.support.commands import Program

HANDLER = "def handle(data, context):\n    return data\n"


def export(environment: Environment, *arguments: str | Path, expect: int = 0) -> str:
    return run(environment.program("hatch-mar"), "export", *arguments, expect=expect)


def test_a_wheel_gives_the_archive_it_was_built_with(
    hatch_mar: Program, sample_wheel: Path, sample_mar: Path, tmp_path: Path
) -> None:
    said = hatch_mar("export", sample_wheel, "-d", tmp_path / "new")
    assert said.out.strip() == str(tmp_path / "new" / sample_mar.name)
    assert (tmp_path / "new" / sample_mar.name).read_bytes() == sample_mar.read_bytes()


def test_so_does_an_installation(
    wheelhouse: Path, sample_wheel: Path, sample_mar: Path, tmp_path: Path
) -> None:
    environment = make_environment(tmp_path / "environment")
    environment.install(sample_wheel, *wheelhouse.glob("*.whl"))
    said = export(environment, "digits", "-d", tmp_path)
    assert said.strip() == str(tmp_path / sample_mar.name)
    assert (tmp_path / sample_mar.name).read_bytes() == sample_mar.read_bytes()


def test_so_does_a_project_without_a_build(
    hatch_mar: Program, sample_mar: Path, tmp_path: Path
) -> None:
    said = hatch_mar("export", SAMPLE_PROJECT, "-d", tmp_path, "--json")
    assert said.document == {
        "path": str(tmp_path / sample_mar.name),
        "name": "digits",
        "version": "1.0.0",
        "format": "mar",
        "members": 15,
        "size": sample_mar.stat().st_size,
        "references": [],
    }
    assert (tmp_path / sample_mar.name).read_bytes() == sample_mar.read_bytes()


def test_neither_a_file_nor_a_model(hatch_mar: Program, tmp_path: Path) -> None:
    said = hatch_mar("export", "nobody", "-d", tmp_path)
    assert said.code == TargetError.exit_code
    assert said.err.startswith("hatch-mar: nobody: no such model is installed")


def test_a_wheel_that_is_not_there(hatch_mar: Program, tmp_path: Path) -> None:
    path = tmp_path / "gone.whl"
    said = hatch_mar("export", path)
    assert said.code == TargetError.exit_code
    assert said.err == f"hatch-mar: {path}: no such file or directory\n"


def test_a_wheel_without_a_model(hatch_mar: Program, wheelhouse: Path, tmp_path: Path) -> None:
    (wheel,) = wheelhouse.glob("*.whl")
    said = hatch_mar("export", wheel, "-d", tmp_path)
    assert said.code == ArchiveError.exit_code
    assert "a wheel without a model" in said.err
    assert list(tmp_path.iterdir()) == []


def test_another_format_and_back(hatch_mar: Program, sample_mar: Path, tmp_path: Path) -> None:
    last = sample_mar
    for form, name in (("dir", "digits-1.0.0"), ("tgz", "digits-1.0.0.tar.gz"), ("mar", "")):
        said = hatch_mar("export", last, "-d", tmp_path, "--format", form, "--json")
        last = tmp_path / (name or sample_mar.name)
        assert said.document["path"] == str(last)
    assert last.read_bytes() == sample_mar.read_bytes()


@pytest.mark.usefixtures("weights_cache")
@pytest.mark.parametrize("form", ["mar", "tgz", "dir"])
def test_weights_come_into_the_archive(hatch_mar: Program, tmp_path: Path, form: str) -> None:
    path = write_referring(tmp_path)
    said = hatch_mar("export", path, "--embed", "-d", tmp_path / "out", "--format", form)
    assert said.code == 0, said.err
    with open_archive(tmp_path / "out" / said.out.strip()) as archive:
        assert archive.seal is not None
        assert archive.seal.references == ()
        assert archive.seal.members["weights/big.bin"].size == len(WEIGHTS)
        assert archive.read("weights/big.bin") == WEIGHTS
        assert archive.manifest.serialized_file == "weights/big.bin"
    assert hatch_mar("verify", said.out.strip()).code == 0
    assert (tmp_path / "out" / said.out.strip()).exists()


@pytest.mark.usefixtures("weights_cache")
def test_weights_of_a_project(
    hatch_mar: Program, make_project: ProjectMaker, tmp_path: Path
) -> None:
    write_referring(tmp_path)
    reference = hatch_mar("inspect", tmp_path / "far-2.mar", "--json").document["references"][0]
    mar = 'handler = "handler.py:handle"\n[[tool.mar.weights]]\n'
    mar += f'source = "{reference["source"]}"\nsha256 = "{reference["sha256"]}"\n'
    project = make_project(mar=mar)
    said = hatch_mar("export", project, "--embed", "-d", tmp_path / "out", "--json")
    assert said.document["references"] == []
    with open_archive(tmp_path / "out" / "demo-1.0.mar") as archive:
        assert archive.read("big.bin") == WEIGHTS


def test_nothing_to_embed_changes_nothing(
    hatch_mar: Program, sample_mar: Path, tmp_path: Path
) -> None:
    hatch_mar("export", sample_mar, "--embed", "-d", tmp_path)
    assert (tmp_path / sample_mar.name).read_bytes() == sample_mar.read_bytes()


@pytest.mark.usefixtures("weights_cache")
def test_offline_all_that_is_missing_is_named(
    hatch_mar: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")
    url = "https://weights.example/"
    more = Reference(target="more.bin", source=url, sha256="ab" * 32)
    path = write_referring(tmp_path, more, source=url)
    said = hatch_mar("export", path, "--embed", "-d", tmp_path / "out")
    assert said.code == OfflineError.exit_code
    assert [line.split(":")[0] for line in said.err.removeprefix("hatch-mar: ").splitlines()] == [
        "weights/big.bin",
        "more.bin",
    ]


@pytest.mark.usefixtures("weights_cache")
def test_offline(hatch_mar: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HATCH_MAR_OFFLINE", "1")
    path = write_referring(tmp_path, source="https://user:secret@weights.example/big.bin")
    said = hatch_mar("export", path, "--embed", "-d", tmp_path / "out", "--json")
    assert said.code == OfflineError.exit_code
    (problem,) = said.document["problems"]
    assert "HATCH_MAR_OFFLINE" in problem["message"]
    assert "secret" not in said.out
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("weights_cache")
def test_weights_that_are_gone(hatch_mar: Program, tmp_path: Path) -> None:
    path = write_referring(tmp_path)
    (tmp_path / "big.bin").unlink()
    assert hatch_mar("export", path, "--embed", "-d", tmp_path / "out").code == (
        WeightsError.exit_code
    )
    assert not (tmp_path / "out").exists()


def alter(cache: Path) -> tuple[Path, os.stat_result]:
    """Write other bytes into the one file of the cache; return it, and what it was before."""
    (cached,) = (file for file in (cache / "sha256").rglob("*") if file.is_file())
    before = cached.stat()
    cached.chmod(0o644)
    cached.write_bytes(WEIGHTS[::-1])
    return cached, before


def test_a_cached_file_that_was_altered(
    hatch_mar: Program, weights_cache: Path, tmp_path: Path
) -> None:
    path = write_referring(tmp_path)
    hatch_mar("export", path, "--embed", "-d", tmp_path / "out")
    cached, _ = alter(weights_cache)
    said = hatch_mar("export", path, "--embed", "-d", tmp_path / "again")
    assert said.code == 0, "it was fetched again"
    assert cached.read_bytes() == WEIGHTS


def test_a_cached_file_that_rots(hatch_mar: Program, weights_cache: Path, tmp_path: Path) -> None:
    """No time tells of it, but whoever embeds a file hashes it."""
    path = write_referring(tmp_path)
    hatch_mar("export", path, "--embed", "-d", tmp_path / "out")
    cached, before = alter(weights_cache)
    os.utime(cached, ns=(before.st_atime_ns, before.st_mtime_ns))
    said = hatch_mar("export", path, "--embed", "-d", tmp_path / "again")
    assert said.code == ArchiveError.exit_code
    assert f"{cached} is not what was locked" in said.err
    assert list((tmp_path / "again").iterdir()) == []


@pytest.mark.usefixtures("weights_cache")
@pytest.mark.parametrize("form", ["mar", "dir"])
def test_an_archive_does_not_replace_itself(hatch_mar: Program, tmp_path: Path, form: str) -> None:
    path = write_referring(tmp_path, form="mar" if form == "mar" else "dir")
    said = hatch_mar("export", path, "--embed", "-d", tmp_path)
    assert said.code == ArchiveError.exit_code
    assert "name another directory with -d" in said.err
    assert hatch_mar("verify", path).code == 0


def test_a_directory_that_is_something_else(hatch_mar: Program, tmp_path: Path) -> None:
    path = write_mar(tmp_path, "echo", HANDLER)
    mine = tmp_path / "echo-1.0" / "mine.txt"
    mine.parent.mkdir()
    mine.touch()
    said = hatch_mar("export", path, "--format", "dir", "-d", tmp_path)
    assert said.code == ArchiveError.exit_code
    assert mine.exists()


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    path = write_referring(tmp_path)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(WEIGHTS) + 400, len(WEIGHTS) + 400))

    command: list[str | Path] = [sys.executable, "-m", "hatch_mar", "export", path]
    command += ["--embed", "-d", tmp_path / "out"]
    result = subprocess.run(
        command,
        check=False,
        capture_output=True,
        text=True,
        preexec_fn=limit,
        env={"HATCH_MAR_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert result.returncode == ArchiveError.exit_code
    assert "cannot be written: File too large" in result.stderr
    assert list((tmp_path / "out").iterdir()) == []
