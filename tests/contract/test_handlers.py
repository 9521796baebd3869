"""Every kind of handler that an archive may name: same answers from both servers."""

from __future__ import annotations

import importlib.util
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch

from tests.support.exchange import Call, Pair, exchange, is_close

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.torchserve import TorchServeHome

JSON = [("Content-Type", "application/json")]


@pytest.fixture(scope="module")
def network(handlers: Path) -> Any:
    """The eager project's network, with weights of its own."""
    spec = importlib.util.spec_from_file_location("eager_model", handlers / "eager" / "model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    torch.manual_seed(7)
    return module.Scorer().eval()


@pytest.fixture(scope="module")
def weights(network: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same network as a state dict, as TorchScript and as ONNX."""
    directory = tmp_path_factory.mktemp("weights")
    files = {kind: directory / kind for kind in ("state.pt", "script.pt", "graph.onnx")}
    torch.save(network.state_dict(), files["state.pt"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # TorchScript itself, since torch 2.9
        torch.jit.script(network).save(str(files["script.pt"]))
    onnx.save(_as_onnx(network), files["graph.onnx"])
    return files


def _as_onnx(network: Any) -> Any:
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    helper, real = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "hidden.weight", "hidden.bias"], ["h"], transB=1),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("Gemm", ["r", "out.weight", "out.bias"], ["y"], transB=1),
        ],
        "scorer",
        [helper.make_tensor_value_info("x", real, ["rows", 3])],
        [helper.make_tensor_value_info("y", real, ["rows", 2])],
        [onnx.numpy_helper.from_array(array, name) for name, array in state.items()],
    )
    opset = helper.make_opsetid("", 17)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8)


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome,
    handlers: Path,
    weights: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    store = tmp_path_factory.mktemp("store")
    names = handlers / "eager" / "index_to_name.json"

    def archive(name: str, handler: str = "handler.py", **files: Any) -> None:
        handler = str(handlers / name / handler)
        torchserve_home.make_archive(name, store, handler=handler, **files)

    extra = [handlers / "plain_class" / name for name in ("shapes.py", "factor.json")]
    archive("plain_class", extra_files=extra)
    archive("plain_function", "handler:answer")
    archive(
        "eager",
        model_file=handlers / "eager" / "model.py",
        weights=weights["state.pt"],
        extra_files=[names],
    )
    archive("scripted", weights=weights["script.pt"], extra_files=[names])
    archive("onnx", weights=weights["graph.onnx"], extra_files=[names])
    archive("batched", config=handlers / "batched" / "model-config.yaml")
    return store


def _ask(model: str, value: object) -> Call:
    return Call(path=f"/predictions/{model}", headers=JSON, body=json.dumps(value).encode())


def test_class(pair: Pair) -> None:
    theirs, ours = pair.answers(_ask("plain_class", [[2, 3], [0.5, 4]]))
    assert theirs == {"area": 4.0, "at_home": True, "importable": True, "gpu": None}
    assert ours == theirs


def test_function(pair: Pair) -> None:
    theirs, ours = pair.answers(_ask("plain_function", [1]))
    assert theirs == {"calls": [None, 1], "row": ["body"]}
    assert ours == theirs


@pytest.mark.parametrize("model", ["eager", "scripted", "onnx"])
@pytest.mark.parametrize("row", [[0, 0, 0], [1, -2, 3.5], [-100, 1e-6, 42]])
def test_same_scores(pair: Pair, network: Any, model: str, row: list[float]) -> None:
    theirs, ours = pair.answers(_ask(model, row))
    with torch.inference_mode():
        expected = network(torch.tensor([row], dtype=torch.float32))[0].tolist()
    assert is_close(theirs["scores"], expected)
    assert is_close(ours, theirs)


@pytest.mark.parametrize("model", ["eager", "scripted", "onnx", "plain_class"])
def test_same_refusal_of_a_bad_input(pair: Pair, model: str) -> None:
    theirs, ours = (reply.comparable() for reply in pair.ask(_ask(model, {"not": "a row"})))
    assert theirs["status"] == 503
    assert ours == theirs


def test_a_full_batch_does_not_wait(pair: Pair) -> None:
    """Four requests fill `batchSize: 4`, so nobody waits out the delay of twenty seconds."""
    for url in (pair.theirs, pair.ours):
        with ThreadPoolExecutor(4) as clients:
            calls = [_ask("batched", word) for word in "abcd"]
            replies = list(clients.map(lambda call, to=url: exchange(to, call).json(), calls))
        assert replies == [{"batch": 4, "word": word} for word in "abcd"]
