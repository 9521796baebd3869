"""`hatch-mar cache`: what is in the cache, whether it is right, and what can go."""

from __future__ import annotations

import hashlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from hatch_mar.errors import WeightsError
from hatch_mar.weights.upkeep import hold
from tests.support.commands import WEIGHTS, write_referring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Program

SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def pulled(hatch_mar: Program, weights_cache: Path, tmp_path: Path) -> Path:
    """A file in the cache; return its path."""
    hatch_mar("pull", write_referring(tmp_path))
    return weights_cache / "sha256" / SHA256[:2] / SHA256


def age(pulled: Path, days: float) -> None:
    """Make it as if the file had last been used so many days ago."""
    then = time.time() - days * 86_400
    os.utime(pulled.parents[2] / "ledger" / f"{pulled.name}.json", (then, then))


def damage(pulled: Path) -> None:
    pulled.chmod(0o644)
    pulled.write_bytes(WEIGHTS[::-1])


def test_path(hatch_mar: Program, weights_cache: Path) -> None:
    assert hatch_mar("cache", "path").out == f"{weights_cache}\n"
    assert hatch_mar("cache", "path", "--json").document == {"directory": str(weights_cache)}
    assert not weights_cache.exists()


class TestList:
    def test_nothing(self, hatch_mar: Program, weights_cache: Path) -> None:
        assert hatch_mar("cache", "list").out == f"0 files, 0 B, in {weights_cache}\n"

    def test_one_file_and_a_part(
        self, hatch_mar: Program, pulled: Path, weights_cache: Path
    ) -> None:
        age(pulled, 3)
        part = weights_cache / "partial" / ("ab" * 32)
        part.write_bytes(bytes(4096))
        lines = hatch_mar("cache", "list").out.splitlines()
        assert [line.split()[0] for line in lines] == ["sha256", "abababababab", SHA256[:12], "2"]
        assert "(part)" in lines[1]
        assert "256.0 kB  3 days ago" in lines[2]
        assert lines[2].endswith("far 2")
        assert lines[3] == f"2 files, 260.1 kB, in {weights_cache}"

    def test_as_json(self, hatch_mar: Program, pulled: Path, weights_cache: Path) -> None:
        document = hatch_mar("cache", "list", "--json").document
        (file,) = document.pop("files")
        assert document == {"directory": str(weights_cache), "size": len(WEIGHTS)}
        assert abs(time.time() - file.pop("used")) < 60
        assert abs(time.time() - file.pop("since")) < 60
        assert file == {
            "key": SHA256,
            "path": str(pulled),
            "size": len(WEIGHTS),
            "whole": True,
            "compiled": False,
            "models": ["far 2"],
        }

    def test_it_is_no_directory(self, hatch_mar: Program, weights_cache: Path) -> None:
        weights_cache.touch()
        for arguments in (["list"], ["verify"], ["prune", "--max-size=0"]):
            said = hatch_mar("cache", *arguments)
            assert said.code == WeightsError.exit_code
            assert said.err.startswith(f"hatch-mar: {weights_cache}: the cache cannot be read: Not")
        said = hatch_mar("cache", "list", "--json")
        assert "cannot be read" in said.document["problems"][0]["message"]


class TestVerify:
    def test_all_is_well(self, hatch_mar: Program, pulled: Path, weights_cache: Path) -> None:
        said = hatch_mar("cache", "verify")
        assert (said.code, said.err) == (0, "")
        assert said.out == f"1 file, 256.0 kB, in {weights_cache}: as locked\n"

    def test_a_damaged_file(self, hatch_mar: Program, pulled: Path) -> None:
        damage(pulled)
        said = hatch_mar("cache", "verify")
        assert said.code == WeightsError.exit_code
        assert said.out.startswith(f"{pulled}: damaged: has sha256 ")
        assert "used by far 2; hatch-mar cache verify --fix removes it" in said.out
        assert pulled.exists()

    def test_it_is_removed(self, hatch_mar: Program, pulled: Path, tmp_path: Path) -> None:
        damage(pulled)
        said = hatch_mar("cache", "verify", "--fix")
        assert said.code == 0
        assert said.out.splitlines()[0].endswith("used by far 2; removed")
        assert not pulled.exists()
        hatch_mar("pull", tmp_path / "far-2.mar")
        assert pulled.read_bytes() == WEIGHTS

    def test_also_while_it_is_served(self, hatch_mar: Program, pulled: Path) -> None:
        """Who has it open keeps the bytes; nobody else gets them."""
        damage(pulled)
        descriptor = hold(pulled)
        assert descriptor is not None
        assert hatch_mar("cache", "verify", "--fix").code == 0
        assert os.pread(descriptor, 10, 0) == WEIGHTS[::-1][:10]
        os.close(descriptor)

    def test_as_json(self, hatch_mar: Program, pulled: Path) -> None:
        damage(pulled)
        said = hatch_mar("cache", "verify", "--json")
        (file,) = said.document["files"]
        assert said.code == WeightsError.exit_code
        assert (file["key"], file["state"], file["removed"]) == (SHA256, "damaged", False)
        assert file["found"] == hashlib.sha256(WEIGHTS[::-1]).hexdigest()


class TestPrune:
    def test_by_age(self, hatch_mar: Program, pulled: Path) -> None:
        age(pulled, 31)
        said = hatch_mar("cache", "prune", "--older-than", "32d")
        assert said.out == "0 files, 0 B, removed\n"
        said = hatch_mar("cache", "prune", "--older-than", "30d")
        assert said.out.splitlines() == [
            f"{SHA256[:12]}  256.0 kB  used 31 days ago  removed",
            "1 file, 256.0 kB, removed",
        ]
        assert not pulled.exists()

    @pytest.mark.parametrize(("size", "stays"), [("256 kB", True), ("250KiB", True), ("0", False)])
    def test_by_size(self, hatch_mar: Program, pulled: Path, size: str, stays: bool) -> None:
        assert hatch_mar("cache", "prune", "--max-size", size).code == 0
        assert pulled.exists() is stays

    def test_a_dry_run(self, hatch_mar: Program, pulled: Path) -> None:
        said = hatch_mar("cache", "prune", "--max-size=0", "--dry-run")
        assert said.out.splitlines()[-1] == "1 file, 256.0 kB, would be removed"
        assert pulled.exists()

    def test_what_is_served_stays(self, hatch_mar: Program, pulled: Path) -> None:
        descriptor = hold(pulled)
        assert descriptor is not None
        said = hatch_mar("cache", "prune", "--max-size=0")
        assert "is in use, and stays" in said.out
        document = hatch_mar("cache", "prune", "--max-size=0", "--json").document
        assert document["freed"] == 0
        assert [file["fate"] for file in document["files"]] == ["in use"]
        os.close(descriptor)
        document = hatch_mar("cache", "prune", "--max-size=0", "--json").document
        assert (document["freed"], document["dry_run"]) == (len(WEIGHTS), False)

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "say what may go: --max-size 50GB, --older-than 30d, or both"),
            (["--max-size", "much"], "'much' is not a size; write it like '100 MB' or '2 GiB'"),
            (["--older-than", "3 moons"], "'3 moons' is not an age; write it like 30d or 12h"),
        ],
    )
    def test_mistakes(self, hatch_mar: Program, arguments: list[str], words: str) -> None:
        said = hatch_mar("cache", "prune", *arguments)
        assert said.code == 2
        assert words in said.err
