"""The `ts` names: what TorchServe's handlers import."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import hatch_mar.ts
from hatch_mar.model import base_handler, context, factory, faults, labels, metrics

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the import system back afterwards."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in list(sys.modules):
        if name == "ts" or name.startswith("ts.") or name == "base_handler":
            del sys.modules[name]


NAMES = [
    ("ts.torch_handler.base_handler", "BaseHandler", base_handler.BaseHandler),
    ("ts.context", "Context", context.Context),
    ("ts.context", "RequestProcessor", context.RequestProcessor),
    ("ts.utils.util", "PredictionException", faults.PredictionException),
    ("ts.service", "PredictionException", faults.PredictionException),
    ("ts.utils.util", "load_label_mapping", labels.load_label_mapping),
    ("ts.utils.util", "map_class_to_label", labels.map_class_to_label),
    ("ts.metrics.dimension", "Dimension", metrics.Dimension),
    ("ts.metrics.metric_type_enum", "MetricTypes", metrics.MetricTypes),
    ("ts.version", "__version__", "0.12.0"),
    ("ts", "__version__", "0.12.0"),
    ("base_handler", "handler_factory", factory.handler_factory),
]


@pytest.mark.parametrize(("module", "name", "thing"), NAMES)
def test_a_name_leads_to_the_thing_itself(module: str, name: str, thing: Any) -> None:
    hatch_mar.ts.install()
    assert getattr(importlib.import_module(module), name) == thing


def test_a_module_is_one_module_under_both_names() -> None:
    hatch_mar.ts.install()
    old = importlib.import_module("ts.utils.util")
    new = importlib.import_module("hatch_mar.ts.utils.util")
    assert old is new
    assert new.__name__ == "hatch_mar.ts.utils.util"
    assert new.__spec__ is not None
    assert new.__spec__.name == "hatch_mar.ts.utils.util"


def test_attribute_access_works_as_in_torchserve() -> None:
    hatch_mar.ts.install()
    ts = importlib.import_module("ts")
    importlib.import_module("ts.torch_handler.base_handler")
    assert ts.torch_handler.base_handler.BaseHandler is base_handler.BaseHandler


def test_a_name_we_do_not_have_is_missing() -> None:
    hatch_mar.ts.install()
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'ts\.nothing'"):
        importlib.import_module("ts.nothing")


def test_other_modules_are_left_alone() -> None:
    hatch_mar.ts.install()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tsunami")


def test_installing_twice_is_installing_once() -> None:
    before = len(sys.meta_path)
    hatch_mar.ts.install()
    hatch_mar.ts.install()
    assert len(sys.meta_path) == before + 1


def test_our_copy_of_the_factory_gives_way_to_the_original(tmp_path: Path) -> None:
    source = "HATCH_MAR_BASE_HANDLER = 1\nraise RuntimeError('an old copy')\n"
    (tmp_path / "base_handler.py").write_text(source)
    sys.path.insert(0, str(tmp_path))
    hatch_mar.ts.install(tmp_path)
    assert importlib.import_module("base_handler") is factory


def test_an_archives_own_base_handler_is_its_own(tmp_path: Path) -> None:
    (tmp_path / "base_handler.py").write_text("MINE = True\n")
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    hatch_mar.ts.install(tmp_path)
    assert importlib.import_module("base_handler").MINE


def test_classes_of_a_module() -> None:
    util = importlib.import_module("hatch_mar.ts.utils.util")
    module = ModuleType("mine")
    own = type("Own", (ValueError,), {"__module__": "mine"})
    module.Own, module.Imported = own, ValueError  # type: ignore[attr-defined]
    assert util.list_classes_from_module(module) == [own]
    assert util.list_classes_from_module(module, ValueError) == [own]
    assert util.list_classes_from_module(module, KeyError) == []


def test_import_class() -> None:
    utils = importlib.import_module("hatch_mar.ts.handler_utils.utils")
    assert utils.import_class("pathlib.Path").__name__ == "Path"
    assert utils.import_class("Path", "pathlib").__name__ == "Path"
    with pytest.raises(ImportError, match="module 'pathlib' has no class 'Nothing'"):
        utils.import_class("Nothing", "pathlib")


class Timed:
    def __init__(self, *, profile: bool) -> None:
        self.context = SimpleNamespace(
            model_yaml_config={"handler": {"profile": profile}}, metrics=metrics.Metrics("m")
        )

    def preprocess(self, data: int) -> int:
        """Double."""
        return 2 * data


def test_timed_measures_if_the_config_asks_for_it() -> None:
    timed = importlib.import_module("hatch_mar.ts.handler_utils.timer").timed
    preprocess = timed(Timed.preprocess)
    handler = Timed(profile=True)
    assert preprocess(handler, 3) == 6
    (measurement,) = handler.context.metrics.drain()
    assert (measurement.name, measurement.unit) == ("ts_handler_preprocess", "Milliseconds")
    assert preprocess.__doc__ == "Double."


def test_timed_measures_nothing_otherwise() -> None:
    timed = importlib.import_module("hatch_mar.ts.handler_utils.timer").timed
    handler = Timed(profile=False)
    assert timed(Timed.preprocess)(handler, 3) == 6
    assert handler.context.metrics.drain() == []
