"""What was compiled for a device is made once, and found again."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from hatch_mar.model.cuda.kept import describe_device, directory_of, fingerprint, make_once

if TYPE_CHECKING:
    from pathlib import Path

torch = pytest.importorskip("torch")


def test_a_fingerprint_does_not_mind_the_order_of_facts() -> None:
    assert fingerprint({"a": 1, "b": "x"}) == fingerprint({"b": "x", "a": 1})


def test_every_fact_changes_the_fingerprint() -> None:
    assert len({fingerprint({"a": 1}), fingerprint({"a": 2}), fingerprint({"a": 1, "b": 0})}) == 3


def test_a_cpu_is_described_by_what_code_for_it_depends_on() -> None:
    facts = describe_device(torch.device("cpu"))
    assert facts["torch"] == torch.__version__
    assert facts["capability"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_is_described_by_name_and_capability() -> None:
    facts = describe_device(torch.device("cuda:0"))
    assert facts["name"] == torch.cuda.get_device_name(0)
    assert facts["cuda"] == torch.version.cuda


def test_it_lies_in_the_cache(tmp_path: Path) -> None:
    directory = directory_of("aotinductor", {"HATCH_MAR_CACHE_DIR": str(tmp_path)})
    assert directory == tmp_path / "compiled" / "aotinductor"
    assert directory.is_dir()


def test_nobody_else_may_put_code_there(tmp_path: Path) -> None:
    environ = {"HATCH_MAR_CACHE_DIR": str(tmp_path)}
    tmp_path.chmod(0o777)  # as where users share a cache
    directory = directory_of("aotinductor", environ).parent
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.chmod(0o770)
    with pytest.raises(PermissionError, match="compiled: others may write to it, and what lies"):
        directory_of("inductor", environ)


def test_somebody_elses_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environ, owner = {"HATCH_MAR_CACHE_DIR": str(tmp_path)}, os.geteuid()
    directory_of("aotinductor", environ)
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(PermissionError, match=f"belongs to user {owner}"):
        directory_of("aotinductor", environ)


def test_it_is_made_once(tmp_path: Path) -> None:
    path, made = tmp_path / "code.pt2", []

    def make(target: Path) -> None:
        made.append(target)
        target.write_text("code")

    assert make_once(path, make)
    assert not make_once(path, make)
    assert len(made) == 1
    assert path.read_text() == "code"


def test_one_makes_it_while_the_others_wait(tmp_path: Path) -> None:
    path, made, gate = tmp_path / "code.pt2", [], threading.Barrier(4)

    def make(target: Path) -> None:
        made.append(target)
        target.write_text("code")

    def come() -> None:
        gate.wait()
        make_once(path, make)

    threads = [threading.Thread(target=come) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_what_fails_leaves_nothing(tmp_path: Path) -> None:
    def make(target: Path) -> None:
        target.write_text("half")
        raise RuntimeError("no compiler")

    with pytest.raises(RuntimeError, match="no compiler"):
        make_once(tmp_path / "code.pt2", make)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
