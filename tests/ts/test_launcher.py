"""`ts.launcher`: a server is started, given a model, and stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.ts import launcher
from tests.support.archives import write_mar
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

HANDLER = """
    def handle(data, context):
        return None if data is None else ["hello"] * len(data)
"""


def test_start_register_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("store", "tmp"):
        (tmp_path / name).mkdir()
    archive = write_mar(tmp_path / "store", "greeter", HANDLER)
    ports = free_ports(3)
    names = ("inference", "management", "metrics")
    pairs = zip(names, ports, strict=True)
    lines = [f"{name}_address=http://127.0.0.1:{port}" for name, port in pairs]
    lines += ["grpc_inference_port=0", "grpc_management_port=0"]
    (tmp_path / "config.properties").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))  # where its pid file is
    monkeypatch.setattr(launcher, "MANAGEMENT", f"http://127.0.0.1:{ports[1]}")
    monkeypatch.setattr("shutil.which", lambda _: None)  # not a real one, if there is any
    lines_of_output = launcher.start(
        str(tmp_path / "store"),
        str(tmp_path / "config.properties"),
        no_config_snapshots=True,
        disable_token=True,
        enable_model_api=True,
    )
    try:
        registered = launcher.register_model("greeter", archive.name)
        assert registered.status_code == 200, registered.text
        assert "registered" in registered.json()["status"]
        assert launcher.register_model("nobody", "nowhere.mar").status_code in {400, 404}
    finally:
        launcher.stop()
    told = list(iter(lambda: lines_of_output.get(timeout=60), None))
    assert any("greeter" in str(line) for line in told)
