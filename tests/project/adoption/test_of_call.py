"""A call of torch-model-archiver, as a project."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.project.adoption.calls import parse_call, split_command
from hatch_mar.project.adoption.of_call import draft_of_call

if TYPE_CHECKING:
    from pathlib import Path

NEEDED = "torch-model-archiver --model-name x --version 1.0 --handler h.py"


def adopt(root: Path, command: str) -> dict[str, Any]:
    text = draft_of_call(parse_call(split_command(command)), root).to_toml()
    return tomllib.loads(text)


def mar(root: Path, command: str) -> dict[str, Any]:
    table: dict[str, Any] = adopt(root, command)["tool"]["mar"]
    return table


def text_of(root: Path, command: str) -> str:
    return " ".join(
        line.removeprefix("# ")
        for line in draft_of_call(parse_call(split_command(command)), root).to_toml().splitlines()
    )


@pytest.mark.parametrize(
    ("given", "handler"),
    [
        ("image_classifier", "image_classifier"),
        ("handler", "handler.py"),
        ("src/handler.py", "src/handler.py"),
        ("./handler:predict", "handler.py:predict"),
        ("handler.py:predict", "handler.py:predict"),
        ("vllm_handler", "vllm_handler"),
    ],
)
def test_every_form_of_a_handler(tmp_path: Path, given: str, handler: str) -> None:
    command = f"torch-model-archiver --model-name x --version 1.0 --handler {given}"
    assert mar(tmp_path, command)["handler"] == handler


def test_the_archive_is_called_as_it_was(tmp_path: Path) -> None:
    assert mar(tmp_path, NEEDED)["archive"] == {"filename": "{name}.mar"}
    tgz = {"format": "tgz", "filename": "{name}.tar.gz"}
    assert mar(tmp_path, f"{NEEDED} --archive-format tgz")["archive"] == tgz
    folder = {"format": "dir", "filename": "{name}"}
    assert mar(tmp_path, f"{NEEDED} --archive-format no-archive")["archive"] == folder


def test_a_place_in_the_project_is_said_from_dist(tmp_path: Path) -> None:
    archive = mar(tmp_path, f"{NEEDED} --export-path model_store")["archive"]
    assert archive["directory"] == "../model_store"


def test_a_place_elsewhere_is_for_a_variable(tmp_path: Path) -> None:
    command = f"{NEEDED} --export-path /srv/store"
    assert "directory" not in mar(tmp_path, command)["archive"]
    assert "HATCH_MAR_DIR" in text_of(tmp_path, command)


def test_a_file_from_elsewhere_has_to_come_in(tmp_path: Path) -> None:
    command = f"{NEEDED} --serialized-file ../runs/best.pt"
    assert mar(tmp_path, command)["weights"] == "best.pt"
    assert "copy ../runs/best.pt here" in text_of(tmp_path, command)


def test_an_absolute_path_into_the_project_is_relative(tmp_path: Path) -> None:
    command = f"{NEEDED} --serialized-file {tmp_path}/runs/best.pt"
    assert mar(tmp_path, command)["weights"] == "runs/best.pt"


def test_a_model_path_is_looked_into_first(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "h.py").touch()
    (tmp_path / "w.pt").touch()
    command = f"{NEEDED} --model-path model --serialized-file w.pt --extra-files '*.py'"
    table = mar(tmp_path, command)
    assert (table["handler"], table["weights"]) == ("model/h.py", "w.pt")
    assert table["extra-files"] == ["model/*.py"]


def test_extra_files_in_folders_are_laid_flat(tmp_path: Path) -> None:
    table = mar(tmp_path, f"{NEEDED} --extra-files 'labels.json,lib/*.py'")
    assert table["extra-files"] == ["labels.json", "lib/*.py"]
    assert table["extra-layout"] == "flat"
    assert "extra-layout" not in mar(tmp_path, f"{NEEDED} --extra-files labels.json")


def test_the_requirements_become_dependencies(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text(
        "--extra-index-url https://example.org/simple\n"
        "numpy>=1.26  # arrays\ntorch==2.10\ntorchvision\nPillow --hash=sha256:00\n-r other.txt\n"
    )
    project = adopt(tmp_path, f"{NEEDED} -r requirements.txt")
    assert project["project"]["dependencies"] == [
        "hatch-mar[serve]",
        "numpy>=1.26",
        "Pillow",
        "torch",
        "torchvision",
    ]
    assert project["tool"]["mar"]["requirements"] == "requirements.txt"


def test_the_class_is_named_where_there_are_several(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(
        "from torch import nn\n\nclass Part(nn.Module): pass\n\n"
        "class Whole(nn.Module):\n    def __init__(self):\n        self.part = Part()\n"
    )
    table = mar(tmp_path, f"{NEEDED} --model-file model.py")
    assert (table["model-file"], table["model-class"]) == ("model.py", "Whole")


def test_onnx_needs_no_torch(tmp_path: Path) -> None:
    project = adopt(tmp_path, f"{NEEDED} --serialized-file m.onnx")["project"]
    assert project["dependencies"] == ["hatch-mar[serve,onnx]"]


def test_big_weights_are_embedded_as_they_were(tmp_path: Path) -> None:
    with (tmp_path / "big.pt").open("wb") as file:
        file.truncate(100_000_001)
    table = mar(tmp_path, f"{NEEDED} --serialized-file big.pt")
    assert table["weights"] == {"source": "big.pt", "place": "embed"}


SCRIPT = "./build.sh --model_name x --version 1.0 --model_file m.py --checkpoint_file w.pt"


def test_the_scripts_tarball_is_unpacked(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("minWorkers: 1\n")
    table = mar(tmp_path, f"{SCRIPT} --config_file c.yaml --extra_files src.tar.gz")
    assert table == {
        "handler": "m.py",
        "weights": "w.pt",
        "extra-files": ["src.tar.gz"],
        "system": {"extra-files": "src.tar.gz"},
        "config": "c.yaml",
    }


def test_the_scripts_config_may_say_so_already(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("system:\n  extraFiles: src.tar.gz\n")
    table = mar(tmp_path, f"{SCRIPT} --config_file c.yaml --extra_files src.tar.gz")
    assert "system" not in table
