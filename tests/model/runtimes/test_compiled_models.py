"""What `cuda:` asks of models that are not modules, from the config to the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.models import Ask

pytest.importorskip("torch")


def answers_of(model: Any, ask: Ask, *values: Any) -> list[Any]:
    answers = model.predict([ask(json.dumps(value).encode()) for value in values])
    return [json.loads(bytes(answer.body)) for answer in answers]


@pytest.mark.parametrize("file", ["dynamic.onnx", "pairs.onnx"])
def test_an_onnx_model_may_be_bound(open_saved: Any, ask: Ask, file: str) -> None:
    plain, bound = open_saved(file), open_saved(file, config={"cuda": {"ioBinding": True}})
    values = [1.0, 2.0], [2.0, 1.0], [0.5, 3.0]
    assert answers_of(bound, ask, *values) == answers_of(plain, ask, *values)


def test_an_exported_program_may_be_compiled(
    open_saved: Any, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    plain = open_saved("program.pt2")
    compiled = open_saved("program.pt2", config={"cuda": {"aotInductor": True}})
    values = [1.0, 2.0], [2.0, 1.0], [0.5, 3.0]
    assert answers_of(compiled, ask, *values) == answers_of(plain, ask, *values)
    assert list((tmp_path / "cache").rglob("*.pt2"))


def test_a_program_that_cannot_be_compiled_runs_as_it_is(
    open_saved: Any,
    ask: Ask,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "cache").touch()
    monkeypatch.setenv("HATCH_MAR_CACHE_DIR", str(tmp_path / "cache"))
    model = open_saved("program.pt2", config={"cuda": {"aotInductor": True}})
    assert answers_of(model, ask, [1.0, 2.0]) == answers_of(
        open_saved("program.pt2"), ask, [1.0, 2.0]
    )
    assert "cuda.aotInductor: failed, the model runs as it is" in caplog.text
