"""The `ts` names: what TorchServe's handlers import."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

import hatch_mar
import hatch_mar.ts
from hatch_mar.cli.old_names import OLD_NAMES
from hatch_mar.model import (
    base_handler,
    compilation,
    context,
    factory,
    faults,
    labels,
    metrics,
    micro_batching,
    timing,
)
from hatch_mar.model.handlers import tokens
from hatch_mar.ts.finder import AliasFinder

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the import system back afterwards."""
    plain = [finder for finder in sys.meta_path if not isinstance(finder, AliasFinder)]
    monkeypatch.setattr(sys, "meta_path", plain)
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
    ("ts.handler_utils.timer", "timed", timing.timed),
    ("ts.handler_utils.micro_batching", "MicroBatching", micro_batching.MicroBatching),
    ("ts.handler_utils.text_utils", "get_tokenizer", tokens.get_tokenizer),
    ("ts.utils.util", "CLEANUP_REGEX", tokens.CLEANUP_REGEX),
    ("ts.utils.util", "check_valid_pt2_backend", compilation.check_valid_pt2_backend),
    *(
        (f"ts.torch_handler.{module}", name, None)
        for module, name in (
            ("vision_handler", "VisionHandler"),
            ("image_classifier", "ImageClassifier"),
            ("image_segmenter", "ImageSegmenter"),
            ("object_detector", "ObjectDetector"),
            ("text_handler", "TextHandler"),
            ("text_classifier", "TextClassifier"),
            ("densenet_handler", "DenseNetHandler"),
            ("dali_handler", "DALIHandler"),
            ("dali_image_classifier", "DALIImageClassifier"),
            ("vllm_handler", "VLLMHandler"),
            ("trt_llm_handler", "TRTLLMHandler"),
            ("distributed.base_deepspeed_handler", "BaseDeepSpeedHandler"),
            ("distributed.base_pippy_handler", "BasePippyHandler"),
            ("unit_tests.test_utils.mock_context", "MockContext"),
            ("contractions", "CONTRACTION_MAP"),
            ("request_envelope.base", "BaseEnvelope"),
            ("request_envelope.body", "BodyEnvelope"),
            ("request_envelope.json", "JSONEnvelope"),
            ("request_envelope.kserve", "KServeEnvelope"),
            ("request_envelope.kservev2", "KServev2Envelope"),
        )
    ),
    ("ts.metrics.metric", "Metric", None),
    ("ts.metrics.unit", "Units", None),
    ("ts.metrics.caching_metric", "CachingMetric", None),
    ("ts.metrics.metric_cache_errors", "MetricsCacheKeyError", None),
    ("ts.metrics.metric_cache_yaml_impl", "MetricsCacheYamlImpl", None),
    ("ts.metrics.metrics_store", "MetricsStore", None),
    ("ts.metrics.process_memory_metric", "get_cpu_usage", None),
    ("ts.handler_utils.hf_batch_streamer", "TextIteratorStreamerBatch", None),
    ("ts.handler_utils.distributed.deepspeed", "get_ds_engine", None),
    ("ts.handler_utils.distributed.pt_pippy", "get_pipeline_driver", None),
    ("ts.launcher", "register_model", None),
]
"""Module, name, and what it is; None where it is the module's own."""


@pytest.mark.parametrize(("module", "name", "thing"), NAMES)
def test_a_name_leads_to_the_thing_itself(module: str, name: str, thing: Any) -> None:
    hatch_mar.ts.install()
    found = getattr(importlib.import_module(module), name)
    assert found is not None
    assert thing is None or found == thing


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


def test_a_metric_of_ones_own_is_sent_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    metric_class = importlib.import_module("hatch_mar.ts.metrics.metric").Metric
    metric = metric_class("Apples", 3, "count", [metrics.Dimension("Kind", "red")], "r1")
    assert str(metric).startswith("Apples.Count:3|#Kind:red|#hostname:")
    assert str(metric).endswith(",r1")
    assert metric.to_dict()["Unit"] == "Count"
    metric.update(1)
    collector = metrics.Metrics("m")
    monkeypatch.setattr(metric_class, "collector", collector)
    metric.update(2)
    metric.reset()
    first, second = collector.drain()
    assert (first.name, first.value, second.value) == ("Apples", 2.0, 0.0)
    assert first.dimensions == (("Kind", "red"),)


def test_a_metric_of_a_model_is_made_without_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    own = importlib.import_module("hatch_mar.ts.metrics.metric").Metric
    collector = metrics.Metrics("m")
    monkeypatch.setattr(own, "collector", collector)
    caching = importlib.import_module("hatch_mar.ts.metrics.caching_metric").CachingMetric
    caching("Apples", "count", ["Kind"]).add_or_update(2, ["red"])
    (measured,) = collector.drain()
    assert (measured.unit, measured.dimensions) == ("Count", (("Kind", "red"),))


def test_metrics_for_a_context_of_ones_own() -> None:
    store = importlib.import_module("hatch_mar.ts.metrics.metrics_store").MetricsStore("r1", "m")
    store.add_counter("Apples", 1)
    (measured,) = store.drain()
    assert measured.request_id == "r1"


def test_metrics_of_a_file(tmp_path: Path) -> None:
    cache = importlib.import_module("hatch_mar.ts.metrics.metric_cache_yaml_impl")
    path = tmp_path / "metrics.yaml"
    path.write_text("model_metrics: {counter: [{name: A, unit: count, dimensions: [Kind]}]}")
    found = cache.MetricsCacheYamlImpl(str(path))
    found.initialize_cache()
    assert found.get_metric("A").dimension_names == ["Kind"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ts_metrics: {}", "no section"),
        ("model_metrics: {}", "is empty"),
        ("model_metrics: {summary: [{name: A, unit: b, dimensions: []}]}", "summary"),
        ("model_metrics: {gauge: [{name: A}]}", "unit"),
    ],
)
def test_metrics_of_a_wrong_file(tmp_path: Path, text: str, said: str) -> None:
    cache = importlib.import_module("hatch_mar.ts.metrics.metric_cache_yaml_impl")
    errors = importlib.import_module("hatch_mar.ts.metrics.metric_cache_errors")
    path = tmp_path / "metrics.yaml"
    path.write_text(text)
    kinds = errors.MetricsCacheKeyError, errors.MetricsCacheValueError
    with pytest.raises(kinds, match=said):
        cache.MetricsCacheYamlImpl(str(path)).initialize_cache()


def test_the_memory_of_processes(caplog: pytest.LogCaptureFixture) -> None:
    memory = importlib.import_module("hatch_mar.ts.metrics.process_memory_metric")
    assert memory.get_cpu_usage(os.getpid()) > 1_000_000
    assert memory.get_cpu_usage("nobody") == 0
    caplog.set_level("INFO")
    memory.check_process_mem_usage(io.StringIO(f"{os.getpid()},\n"))
    assert caplog.messages[-1].startswith(f"{os.getpid()}:")


def test_a_mock_context_loads_a_handler(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "model.py").write_text("import torch\nclass Net(torch.nn.Linear):\n    pass\n")
    (tmp_path / "config.yaml").write_text("handler: {size: 3}\n")
    source = "def __init__(self):\n        super().__init__(2, 1)\n"
    (tmp_path / "mocked_model.py").write_text(
        f"import torch\nclass Net(torch.nn.Linear):\n    {source}"
    )
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "model.pt")
    mock = importlib.import_module("hatch_mar.ts.torch_handler.unit_tests.test_utils.mock_context")
    made = mock.MockContext(
        model_dir=str(tmp_path), model_file="mocked_model.py", model_yaml_config_file="config.yaml"
    )
    sys.path.insert(0, str(tmp_path))
    handler = base_handler.BaseHandler()
    handler.initialize(made)
    assert made.model_yaml_config == {"handler": {"size": 3}}
    (answer,) = handler.handle([{"body": [1.0, 2.0]}], made)
    assert len(answer) == 1


def test_a_handler_loads_with_a_context_that_has_next_to_nothing(tmp_path: Path) -> None:
    """As unit tests of handlers make one."""
    pytest.importorskip("torch")
    (tmp_path / "bare_model.py").write_text("import torch\nclass Net(torch.nn.Identity): pass\n")
    sys.path.insert(0, str(tmp_path))
    handler = base_handler.BaseHandler()
    made: Any = SimpleNamespace(
        manifest={"model": {"modelFile": "bare_model.py"}},
        system_properties={"model_dir": str(tmp_path)},
        model_yaml_config={},
    )
    handler.initialize(made)
    assert handler.initialized


@pytest.mark.parametrize(
    ("module", "call", "said"),
    [
        ("handler_utils.distributed.pt_pippy", "get_pipeline_driver(None, 1, None)", "pipelining"),
        (
            "torch_handler.distributed.base_pippy_handler",
            "BasePippyHandler().initialize(None)",
            "pipelining",
        ),
        (
            "handler_utils.distributed.deepspeed",
            "get_ds_engine(None, CONTEXT)",
            "pip install deepspeed",
        ),
        (
            "handler_utils.hf_batch_streamer",
            "TextIteratorStreamerBatch(None, 2)",
            "pip install transformers",
        ),
    ],
)
def test_what_is_missing_is_named(
    module: str, call: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("deepspeed", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    found = importlib.import_module(f"hatch_mar.ts.{module}")
    made = SimpleNamespace(model_name="m", model_yaml_config={"deepspeed": {}})
    with pytest.raises(ImportError, match=said):
        eval(call, {**vars(found), "CONTEXT": made})


def test_a_deepspeed_handler_takes_the_gpu_of_its_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.import_module("hatch_mar.ts.torch_handler.distributed.base_deepspeed_handler")
    monkeypatch.setenv("LOCAL_RANK", "3")
    handler = found.BaseDeepSpeedHandler()
    handler.initialize(None)
    assert handler.device == 3


USERS_TEST = """
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.unit_tests.test_utils.mock_context import MockContext
from base_handler import handler_factory

def test_mine():
    assert BaseHandler().initialized is False
    assert MockContext(model_name="m").model_name == "m"
"""


def test_users_own_tests_find_the_names(tmp_path: Path) -> None:
    """The plugin is an entry point of the distribution: nobody has to ask for it."""
    (tmp_path / "test_mine.py").write_text(USERS_TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"]
    environ = {**os.environ, "PYTHONPATH": str(Path(hatch_mar.__file__).parents[1])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_plugin_is_an_entry_point() -> None:
    text = (Path(hatch_mar.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    (module,) = tomllib.loads(text)["project"]["entry-points"]["pytest11"].values()
    assert importlib.import_module(module).offer is hatch_mar.ts.offer


def test_an_installed_torchserve_wins_in_users_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ts.py").write_text("REAL = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    hatch_mar.ts.offer()
    hatch_mar.ts.offer()
    assert importlib.import_module("ts").REAL


def test_the_shim_is_the_same_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = OLD_NAMES["torchserve"].sources["ts/__init__.py"]
    (tmp_path / "ts").mkdir()
    (tmp_path / "ts" / "__init__.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.import_module("ts") is hatch_mar.ts
    found = importlib.import_module("ts.torch_handler.base_handler")
    assert found.BaseHandler is base_handler.BaseHandler
