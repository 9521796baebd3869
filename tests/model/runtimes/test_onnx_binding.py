"""Sessions whose inputs and outputs are bound answer as others do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from hatch_mar.model.devices import name_device  # noqa: E402
from hatch_mar.model.runtimes.onnx_binding import SHAPES_KEPT, BoundSession  # noqa: E402

CPU = name_device(None)


def make_session(kind: str, nodes: Sequence[Any], outputs: Sequence[Any]) -> Any:
    helper = onnx.helper
    given = [helper.make_tensor_value_info("x", getattr(onnx.TensorProto, kind), ["rows", 4])]
    weights = onnx.numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(4, 2), "w")
    graph = helper.make_graph(list(nodes), "graph", given, list(outputs), [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


def make_product() -> Any:
    info, proto = onnx.helper.make_tensor_value_info, onnx.TensorProto
    return make_session(
        "FLOAT",
        [
            onnx.helper.make_node("MatMul", ["x", "w"], ["y"]),
            onnx.helper.make_node("Shape", ["x"], ["s"]),
        ],
        [info("y", proto.FLOAT, ["rows", 2]), info("s", proto.INT64, [2])],
    )


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=12))
def test_answers_are_the_same_and_stay_so(lengths: list[int]) -> None:
    """Later batches do not write over the answers of earlier ones."""
    session = make_product()
    bound = BoundSession(session, CPU)
    random = np.random.default_rng(0)
    batches = [random.random((rows, 4), dtype=np.float32) for rows in lengths]
    answers = [bound.run(["y", "s"], {"x": batch}) for batch in batches]
    for batch, answer in zip(batches, answers, strict=True):
        for got, expected in zip(answer, session.run(["y", "s"], {"x": batch}), strict=True):
            np.testing.assert_array_equal(got, expected)


def test_outputs_may_be_of_another_shape_each_time() -> None:
    """As those of a detector are: how much it finds is not said by the shape of its input."""
    info, proto = onnx.helper.make_tensor_value_info, onnx.TensorProto
    node = onnx.helper.make_node("NonZero", ["x"], ["y"])
    bound = BoundSession(make_session("FLOAT", [node], [info("y", proto.INT64, [2, "n"])]), CPU)
    for found in (1, 3, 0, 2):
        batch = np.zeros((1, 4), np.float32)
        batch[0, :found] = 1
        (answer,) = bound.run(["y"], {"x": batch})
        assert answer.tolist() == [[0] * found, [*range(found)]]


def test_only_the_outputs_that_are_asked_for_come() -> None:
    batch = np.ones((2, 4), np.float32)
    answer = BoundSession(make_product(), CPU).run(["s"], {"x": batch})
    assert [output.tolist() for output in answer] == [[2, 4]]


def test_memory_of_shapes_long_unseen_is_given_back() -> None:
    bound = BoundSession(make_product(), CPU)
    for rows in range(SHAPES_KEPT + 5):
        bound.run(["y"], {"x": np.ones((rows, 4), np.float32)})
    assert bound.shapes == SHAPES_KEPT


def test_an_array_need_not_lie_in_one_piece() -> None:
    batch = np.arange(24, dtype=np.float32).reshape(3, 8)[:, ::2]
    session = make_product()
    answer = BoundSession(session, CPU).run(["y"], {"x": batch})
    np.testing.assert_array_equal(answer[0], session.run(["y"], {"x": batch})[0])


def test_text_goes_unbound() -> None:
    info, text = onnx.helper.make_tensor_value_info, onnx.TensorProto.STRING
    nodes = [onnx.helper.make_node("Identity", ["x"], ["y"])]
    session = make_session("STRING", nodes, [info("y", text, ["rows", 4])])
    answer = BoundSession(session, CPU).run(["y"], {"x": np.array([["a", "b", "c", "d"]], object)})
    assert answer[0].tolist() == [["a", "b", "c", "d"]]
