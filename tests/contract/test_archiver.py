"""The real torch-model-archiver and ours, given the same options: the same archives come out."""

from __future__ import annotations

import json
import subprocess
import tarfile
import textwrap
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.seal import SEAL_NAME
from hatch_mar.cli.torch_model_archiver import main
from tests.support.exchange import Call, exchange
from tests.support.torchserve import TorchServeHome, start_torchserve

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = "MAR-INF/MANIFEST.json"
SUFFIXES = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}
HANDLER = """
    def handle(data, context):
        return None if data is None else [f"handled {len(data)}"]

    def answer(data, context):
        return None if data is None else [f"answered {len(data)}"]
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with everything that can be archived; it is the current one."""
    home = tmp_path / "files"
    for name, text in {
        "handler.py": HANDLER,
        "code/inner_handler.py": HANDLER,
        "model.py": "class Model:\n    pass\n",
        "weights.pt": "weights",
        "requirements.txt": "pyyaml\n",
        "needs/more.txt": "pyyaml\n",
        "config/model-config.yaml": "minWorkers: 1\nmaxWorkers: 1\n",
        "one.txt": "1",
        "two.txt": "2",
        "tree/first.json": "{}",
        "tree/.hidden": "kept",
        "tree/.git/config": "dropped",
        "tree/__pycache__/x.pyc": "dropped",
        "tree/old.pyc": "kept",
        "tree/deep/er/leaf.txt": "leaf",
        "tree/deep/__MACOSX/leaf.txt": "dropped",
    }.items():
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    (home / "tree" / "empty").mkdir()
    (home / "linked.txt").symlink_to("one.txt")
    (home / "tree" / "linked").symlink_to("deep")
    monkeypatch.chdir(home)
    return home


def _run_theirs(home: TorchServeHome, arguments: list[str], tmp_path: Path) -> int:
    staging = tmp_path / "staging"
    staging.mkdir(exist_ok=True)
    command = [str(home.python.with_name("torch-model-archiver")), *arguments]
    done = subprocess.run(
        command, env={"TMPDIR": str(staging)}, check=False, capture_output=True, text=True
    )
    return done.returncode


def _run_ours(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


def _contents(path: Path) -> dict[str, bytes]:
    """Return the files of an archive of any format by their names in it."""
    if path.is_dir():
        found = [each for each in path.rglob("*") if each.is_file()]
        return {each.relative_to(path).as_posix(): each.read_bytes() for each in found}
    if path.suffix == ".gz":
        with tarfile.open(path) as tar:
            return {
                each.name: file.read()
                for each in tar
                if (file := tar.extractfile(each)) is not None
            }
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _comparable(path: Path) -> dict[str, Any]:
    """Return what must be the same: all but the time in the manifest, and our seal."""
    contents: dict[str, Any] = _contents(path)
    (name,) = [each for each in contents if each.endswith(MANIFEST)]
    text = contents.pop(name).decode()
    manifest = json.loads(text)
    assert text == json.dumps(manifest, indent=2)
    manifest["createdOn"] = "then"
    seal = name.replace(MANIFEST, SEAL_NAME)
    return {key: value for key, value in contents.items() if key != seal} | {
        name: json.dumps(manifest, indent=2)
    }


def _both(home: TorchServeHome, tmp_path: Path, form: str, *more: str) -> tuple[Path, Path]:
    arguments = ["--model-name", "m", "--archive-format", form, *more]
    made = []
    for who in ("theirs", "ours"):
        out = tmp_path / who
        out.mkdir(exist_ok=True)
        full = [*arguments, "--export-path", str(out)]
        code = _run_theirs(home, full, tmp_path) if who == "theirs" else _run_ours(full)
        assert code == 0
        made.append(out / f"m{SUFFIXES[form]}")
    return made[0], made[1]


EVERYTHING = (
    *("--handler", "handler.py", "-v", "1.0", "--model-file", "./model.py"),
    *("--serialized-file", "weights.pt", "-r", "needs/more.txt"),
    *("-c", "config/model-config.yaml", "--extra-files", "tree,*.txt,one.txt,,"),
)


@pytest.mark.parametrize("form", SUFFIXES)
def test_every_option_in_every_format(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path, form: str
) -> None:
    theirs, ours = _both(torchserve_home, tmp_path, form, *EVERYTHING)
    assert _comparable(ours) == _comparable(theirs)
    assert len(_comparable(ours)) > 8


@pytest.mark.parametrize("form", ["default", "zip-store"])
def test_the_compression_is_the_same(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path, form: str
) -> None:
    for path in _both(torchserve_home, tmp_path, form, *EVERYTHING):
        with zipfile.ZipFile(path) as archive:
            kinds = {each.compress_type for each in archive.infolist()}
        assert kinds == {zipfile.ZIP_DEFLATED if form == "default" else zipfile.ZIP_STORED}


@pytest.mark.parametrize(
    "handler",
    [
        "handler",
        "handler:answer",
        "handler.py",
        "code/inner_handler.py",
        "code/inner_handler",
        "code/inner_handler:answer",
        "image_classifier",
        "base_handler",
        "vllm_handler",
    ],
)
@pytest.mark.parametrize("runtime", ["python", "python3"])
def test_every_form_of_a_handler(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path, handler: str, runtime: str
) -> None:
    more = ("--handler", handler, "--version", "2", "--runtime", runtime)
    theirs, ours = _both(torchserve_home, tmp_path, "zip-store", *more)
    assert _comparable(ours) == _comparable(theirs)


@pytest.mark.parametrize("handler", ["lib/libmine:Mine", "lib/libmine", "BaseHandler"])
def test_the_compiled_backend(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path, handler: str
) -> None:
    (files / "lib").mkdir()
    (files / "lib" / "libmine.so").write_bytes(b"\x7fELF")
    more = ("--handler", handler, "-v1", "--runtime", "LSP")
    theirs, ours = _both(torchserve_home, tmp_path, "zip-store", *more)
    assert _comparable(ours) == _comparable(theirs)


def test_an_empty_version_is_left_out(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path
) -> None:
    more = ("--handler", "handler", "--version", "", "--model-file=", "--extra-files", "")
    theirs, ours = _both(torchserve_home, tmp_path, "zip-store", *more)
    assert _comparable(ours) == _comparable(theirs)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--model-name", "m", "-v", "1"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "--archive-format", "rar"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "--runtime", "java"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "--source-vocab", "v"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "stray"],
        ["--model", "m", "-v", "1", "--handler", "handler"],
        ["--model-name", "m m", "-v", "1", "--handler", "handler"],
        ["--model-name", "m", "-v", "1", "--handler", "missing"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "--export-path", "nowhere"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "--extra-files", "none.txt"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "--serialized-file", "tree"],
        ["--model-name", "m", "-v", "1", "--handler", "handler", "--extra-files", "no*ne"],
        ["--model-n", "m", "-fv", "1", "--ha=handler", "--archive-f", "tgz"],
        ["-h"],
    ],
    ids=" ".join,
)
def test_the_same_exit_code(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path, arguments: list[str]
) -> None:
    theirs = _run_theirs(torchserve_home, arguments, tmp_path)
    for made in files.glob("m.*"):
        made.unlink()
    assert _run_ours(arguments) == theirs


@pytest.mark.parametrize("form", SUFFIXES)
def test_what_is_there_is_overwritten_only_by_force(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path, form: str
) -> None:
    more = ("--handler", "handler", "-v", "1")
    _, ours = _both(torchserve_home, tmp_path, form, *more)
    before = _contents(ours)
    again = ["--model-name", "m", "--archive-format", form, "--export-path", str(ours.parent)]
    again += ["--handler", "handler:answer", "-v", "2"]
    assert _run_ours(again) == _run_theirs(torchserve_home, again, tmp_path) == 1
    assert _contents(ours) == before
    assert _run_ours([*again, "-f"]) == 0
    assert _contents(ours) != before


def test_torchserve_serves_every_format(
    torchserve_home: TorchServeHome, files: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for form in SUFFIXES:
        arguments = ["--model-name", form, "-v", "1.0", "--handler", "handler.py:answer"]
        arguments += ["--archive-format", form, "--export-path", str(store)]
        assert _run_ours([*arguments, "--extra-files", "tree"]) == 0
    models = [f"{form}={form}{suffix}" for form, suffix in SUFFIXES.items()]
    with start_torchserve(torchserve_home, store, models=models) as server:
        for form in SUFFIXES:
            reply = exchange(server.url, Call(path=f"/predictions/{form}", body=b"x"))
            assert reply.body == b"answered 1"
