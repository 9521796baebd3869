"""`hatch-mar inspect`."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.archive.tarball import make_tarball
from hatch_mar.errors import ArchiveError, TargetError
from tests.support.archives import write_mar
from tests.support.builds import SAMPLE_PROJECT
from tests.support.commands import WEIGHTS, write_referring

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.commands import Program

HANDLER = "def handle(data, context):\n    return data\n"
URL = "https://me:secret@weights.example/big.bin?token=secret"


def test_who_a_model_is(hatch_mar: Program, tmp_path: Path) -> None:
    path = write_mar(tmp_path, "echo", HANDLER, config="batchSize: 4\nhandler: {deep: 1}\n")
    said = hatch_mar("inspect", path)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith("echo 1.0\n")
    for words in ("handler.py:handle", "batchSize: 4", "handler.deep: 1", "sealed   yes"):
        assert words in said.out
    (line,) = (line for line in said.out.splitlines() if "handler.py  " in line)
    assert len(line.split()[-1]) == 12


def test_everything_as_json(hatch_mar: Program, tmp_path: Path) -> None:
    path = write_mar(tmp_path, "echo", HANDLER, examples={b"ask": b"answer"})
    found = hatch_mar("inspect", path, "--json").document
    assert (found["name"], found["version"], found["kind"]) == ("echo", "1.0", "mar")
    assert found["sealed"] is True
    assert found["createdOn"] == "02/02/2020 00:00:00"
    assert found["config"]["file"] is None
    assert found["examples"][0]["contentType"] == "text/plain"
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    assert {each["name"]: each["size"] for each in found["members"]} == sizes
    assert set(found) == set(hatch_mar("inspect", SAMPLE_PROJECT, "--json").document)


def test_what_is_only_named(hatch_mar: Program, weights_cache: Path, tmp_path: Path) -> None:
    path = write_referring(tmp_path, source=URL, mirrors=(URL,))
    plain, found = hatch_mar("inspect", path), hatch_mar("inspect", path, "--json")
    assert "secret" not in plain.out + found.out
    assert "not in the cache" in plain.out
    (reference,) = found.document["references"]
    assert reference["source"] == "https://weights.example/big.bin"
    assert (reference["size"], reference["cached"]) == (len(WEIGHTS), None)


def test_what_is_in_the_cache(hatch_mar: Program, weights_cache: Path, tmp_path: Path) -> None:
    path = write_referring(tmp_path)
    digest = hatch_mar("inspect", path, "--json").document["references"][0]["sha256"]
    file = weights_cache / "sha256" / digest[:2] / digest
    file.parent.mkdir(parents=True)
    file.write_bytes(WEIGHTS)
    assert hatch_mar("inspect", path, "--json").document["references"][0]["cached"] == str(file)


def test_the_files_of_a_tarball(hatch_mar: Program, tmp_path: Path) -> None:
    files = {"extra.tar": make_tarball({"net/a.py": b"a = 1\n"}, gzip=False)}
    config = "system: {extraFiles: [extra.tar, gone.tar]}\n"
    path = write_mar(tmp_path, "echo", HANDLER, config=config, files=files)
    found = hatch_mar("inspect", path, "--json").document
    assert found["extraFiles"] == [
        {"tarball": "extra.tar", "files": [{"name": "net/a.py", "size": 6}]},
        {"tarball": "gone.tar", "files": None},
    ]
    assert "gone.tar" in found["warnings"][0]
    assert "in extra.tar" in hatch_mar("inspect", path).out


def test_an_archive_of_torch_model_archiver(hatch_mar: Program, tmp_path: Path) -> None:
    model = {
        "modelName": "old\x1b[2J",
        "handler": "h.py",
        "requirementsFile": "r.txt",
        "configFile": "c.yaml",
    }
    with zipfile.ZipFile(tmp_path / "old.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": model}))
        archive.writestr("h.py", HANDLER)
        archive.writestr("r.txt", f"# of ours\n\n--index-url={URL}\nx @ git+{URL}\nnumpy>=1 \n")
        archive.writestr("c.yaml", "minWorkers: 1\nnan: .nan\nday: 2024-01-01\n")
    said = hatch_mar("inspect", tmp_path / "old.mar", "--json")
    found = said.document
    assert "secret" not in said.out
    assert found["requirements"] == [
        "--index-url=https://weights.example/big.bin",
        "x @ git+https://weights.example/big.bin",
        "numpy>=1",
    ]
    assert found["config"]["values"] == {"minWorkers": 1, "nan": "nan", "day": "2024-01-01"}
    assert found["warnings"] == ["minWorkers: ignored, because maxWorkers is not set"]
    plain = hatch_mar("inspect", tmp_path / "old.mar").out
    assert "\x1b" not in plain
    assert "sealed   no" in plain


def test_a_directory_a_wheel_and_a_project(
    hatch_mar: Program, sample_wheel: Path, tmp_path: Path
) -> None:
    hatch_mar("export", SAMPLE_PROJECT, "-d", tmp_path, "--format", "dir")
    targets = (tmp_path / "digits-1.0.0", sample_wheel, SAMPLE_PROJECT)
    found = [hatch_mar("inspect", target, "--json").document for target in targets]
    assert [each["kind"] for each in found] == ["dir", "wheel", "project"]
    assert len({each["name"] + str(each["config"]) for each in found}) == 1


@pytest.mark.parametrize("as_json", [False, True])
def test_what_is_no_model(hatch_mar: Program, tmp_path: Path, as_json: bool) -> None:
    (tmp_path / "empty.mar").touch()
    for target, code in ((tmp_path / "empty.mar", ArchiveError), ("no-such-model", TargetError)):
        said = hatch_mar("inspect", target, *(["--json"] if as_json else []))
        assert said.code == code.exit_code
        if as_json:
            (problem,) = said.document["problems"]
            assert problem["file"] == str(target)
        else:
            assert said.err.startswith("hatch-mar: ")
            assert said.out == ""


def test_a_terminal_that_knows_only_ascii_and_a_reader_who_leaves(tmp_path: Path) -> None:
    files = {"süß/x.txt": b""}
    path = write_mar(tmp_path, "echo", HANDLER, files=files)
    command = f"{sys.executable} -m hatch_mar inspect {path}"
    environ = {"PYTHONIOENCODING": "ascii", "PATH": "/usr/bin:/bin"}
    out = subprocess.check_output(command.split(), env=environ, stderr=subprocess.STDOUT)
    assert rb"|-- s\xfc\xdf" in out or rb"`-- s\xfc\xdf" in out
    again = subprocess.check_output([*command.split(), "--json"], env=environ)
    assert any(each["name"] == "süß/x.txt" for each in json.loads(again)["members"])
    piped = ["bash", "-c", f"set -o pipefail; {command} | true"]
    left = subprocess.run(piped, capture_output=True, check=False, text=True)
    assert (left.returncode, left.stderr) == (0, "")
