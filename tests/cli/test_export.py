"""`hatch-mar export`: the archive, from a wheel or an installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.errors import ArchiveError, TargetError
from tests.support.builds import Environment, make_environment, run

if TYPE_CHECKING:
    from pathlib import Path


def export(environment: Environment, *arguments: str | Path, expect: int = 0) -> str:
    return run(environment.program("hatch-mar"), "export", *arguments, expect=expect)


def test_a_wheel_gives_the_archive_it_was_built_with(
    serving_env: Environment, sample_wheel: Path, sample_mar: Path, tmp_path: Path
) -> None:
    said = export(serving_env, sample_wheel, "-d", tmp_path / "new")
    assert said.strip() == str(tmp_path / "new" / sample_mar.name)
    assert (tmp_path / "new" / sample_mar.name).read_bytes() == sample_mar.read_bytes()


def test_so_does_an_installation(
    wheelhouse: Path, sample_wheel: Path, sample_mar: Path, tmp_path: Path
) -> None:
    environment = make_environment(tmp_path / "environment")
    environment.install(sample_wheel, *wheelhouse.glob("*.whl"))
    said = export(environment, "digits", "-d", tmp_path)
    assert said.strip() == str(tmp_path / sample_mar.name)
    assert (tmp_path / sample_mar.name).read_bytes() == sample_mar.read_bytes()


def test_neither_a_file_nor_a_model(serving_env: Environment, tmp_path: Path) -> None:
    said = export(serving_env, "nobody", "-d", tmp_path, expect=TargetError.exit_code)
    assert said.startswith("hatch-mar: nobody: no such model is installed")


def test_a_wheel_that_is_not_there(serving_env: Environment, tmp_path: Path) -> None:
    path = tmp_path / "gone.whl"
    said = export(serving_env, path, expect=TargetError.exit_code)
    assert said == f"hatch-mar: {path}: no such file\n"


def test_a_wheel_without_a_model(
    serving_env: Environment, wheelhouse: Path, tmp_path: Path
) -> None:
    (wheel,) = wheelhouse.glob("*.whl")
    said = export(serving_env, wheel, "-d", tmp_path, expect=ArchiveError.exit_code)
    assert "a wheel without a model" in said
    assert list(tmp_path.iterdir()) == []
