"""`hatch-mar tune`: measured, told, and kept where a runner finds it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from hatch_mar.cli import sweep
from hatch_mar.cli.tune import command

if TYPE_CHECKING:
    from pathlib import Path

HANDLER = """
import time

def handle(data, context):
    if data is None:
        return None
    if len(data) > 8:
        raise RuntimeError("no room for so many")
    time.sleep(0.02 + 0.01 * len(data))
    return [len(data)] * len(data)
"""

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An archive that is a directory, whose batches cost 20 ms and 10 ms for each request."""
    directory = tmp_path / "sleepy"
    (directory / "MAR-INF").mkdir(parents=True)
    manifest = {"runtime": "python", "model": {"modelName": "sleepy", "modelVersion": "1.0"}}
    manifest["model"]["handler"] = "handler.py:handle"  # type: ignore[index]
    (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (directory / "handler.py").write_text(HANDLER)
    (tmp_path / "body.json").write_text("[1]")
    return directory


def tune(model: Path, *arguments: str) -> tuple[int, str]:
    body = str(model.parent / "body.json")
    result = CliRunner().invoke(
        command,
        [str(model), "--input", body, "--device", "cpu", "--seconds", "0", *arguments],
        catch_exceptions=False,
        standalone_mode=False,
    )
    return result.exit_code, result.stdout


def document_of(model: Path, *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(tune(model, "--json", *arguments)[1])
    return value


def test_the_cost_of_a_batch_is_measured(model: Path) -> None:
    told = document_of(model, "--sizes", "1,2,4,8")
    assert [batch["size"] for batch in told["batches"]] == [1, 2, 4, 8]
    assert told["fixed"] > 0
    assert told["perItem"] > 0
    assert told["failure"] == ""


def test_it_is_kept_beside_the_archive(model: Path) -> None:
    told = document_of(model, "--sizes", "1,2,4,8")
    kept = json.loads(model.with_name("sleepy.tuning.json").read_text())["tunings"][0]
    assert (kept["fixed"], kept["perItem"]) == (told["fixed"], told["perItem"])


def test_a_dry_run_keeps_nothing(model: Path) -> None:
    assert document_of(model, "--sizes", "1,4", "--dry-run")["written"] is None
    assert not model.with_name("sleepy.tuning.json").exists()


def test_the_first_size_that_fails_is_the_last(model: Path) -> None:
    told = document_of(model, "--sizes", "4,16,32", "--dry-run")
    assert [batch["size"] for batch in told["batches"]] == [4]
    assert told["failure"] == "a batch of 16: answered 503 Prediction failed"


def test_a_batch_that_is_never_answered_is_the_last(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "LONGEST", 5.0)
    (model / "handler.py").write_text(
        HANDLER.replace('raise RuntimeError("no room for so many")', "time.sleep(600)")
    )
    told = document_of(model, "--sizes", "1,16")
    assert [batch["size"] for batch in told["batches"]] == [1]
    assert told["failure"] == "a batch of 16: no answer within 5 seconds"


def test_a_batch_that_is_refused_is_the_last(model: Path) -> None:
    manifest = json.loads((model / "MAR-INF" / "MANIFEST.json").read_text())
    manifest["model"]["configFile"] = "model-config.yaml"
    (model / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (model / "model-config.yaml").write_text(
        "batchSize: 2\nsequenceBatching: true\nmaxNumSequence: 2\nmaxSequenceJobQueueSize: 1\n"
    )
    told = document_of(model, "--sizes", "1,4")
    assert told["failure"].startswith('a batch of 4: Model "sleepy"')


def test_one_size_does_not_tell_what_a_request_costs(model: Path) -> None:
    told = document_of(model, "--sizes", "4")
    assert told["fixed"] is None
    assert told["unknown"]
    assert told["written"] is None


def test_a_person_reads_what_to_do(model: Path) -> None:
    _, said = tune(model, "--sizes", "1,2,4,8")
    assert "a batch costs " in said
    assert "batchSize 1 attains " in said
    assert f"written to {model}.tuning.json" in said


@pytest.mark.parametrize("sizes", ["", "0", "1,x", "-1", "1;2"])
def test_sizes_are_numbers(model: Path, sizes: str) -> None:
    result = CliRunner().invoke(command, [str(model), "--sizes", sizes])
    assert result.exit_code == 2
    assert "is no list of sizes; write, for example, 1,4,16" in result.output


def test_without_examples_it_asks_for_an_input(model: Path) -> None:
    result = CliRunner().invoke(command, [str(model)])
    assert "it has no golden examples" in str(result.exception)
    assert "--input FILE" in str(result.exception)
