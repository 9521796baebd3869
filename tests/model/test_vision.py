"""The default handlers of images, on networks small enough to follow."""

from __future__ import annotations

import base64
import io
import json
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.images import make_image

if TYPE_CHECKING:
    from tests.support.models import Ask, Load, MakeModel

torch = pytest.importorskip("torch")

MEANS = """
import torch

class Means(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        return x.mean((2, 3)) * self.weight
"""
PIXELS = MEANS.replace("return x.mean((2, 3)) * self.weight", "return {'out': x * self.weight}")
BOXES = """
import torch

class Boxes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, images):
        return [{
            "boxes": torch.tensor([[0., 0., image.shape[2], image.shape[1]]] * 2),
            "labels": torch.tensor([1, 2]),
            "scores": torch.stack([image.mean(), torch.tensor(0.9)]) * self.weight,
        } for image in images]
"""


@pytest.fixture
def serve(make_model: MakeModel, load_model: Load) -> Any:
    """Load a default handler around a network; `files` go into the archive, too."""

    def load(handler: str, network: str, labels: Any = None, **files: str) -> Any:
        buffer = io.BytesIO()
        torch.save({"weight": torch.ones(1)}, buffer)
        named = {"model.py": network, "weights.pt": buffer.getvalue(), **files}
        if labels is not None:
            named["index_to_name.json"] = json.dumps(labels)
        manifest = {"modelFile": "model.py", "serializedFile": "weights.pt"}
        return load_model(make_model(named, handler=handler, manifest=manifest))

    return load


def encode(mode: str = "RGB", size: tuple[int, int] = (300, 200)) -> bytes:
    buffer = io.BytesIO()
    make_image(mode, size).save(buffer, "PNG")
    return buffer.getvalue()


def read(response: Any) -> Any:
    assert response.status == 200, bytes(response.body)
    return json.loads(bytes(response.body))


def test_loading_and_predicting_need_neither_torchvision_nor_captum(
    serve: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torchvision", "captum"):
        monkeypatch.setitem(sys.modules, name, None)
    served = serve("image_classifier", MEANS)
    assert read(served.predict([ask(encode(), "")])[0])


def test_a_class_has_its_label(serve: Any, ask: Ask) -> None:
    served = serve("image_classifier", MEANS, {"0": "red", "1": ["n1", "green"], "2": "blue"})
    answer = read(served.predict([ask(encode(), "")])[0])
    assert set(answer) == {"red", "green", "blue"}, "no more than there are, for all of topk = 5"
    assert sum(answer.values()) == pytest.approx(1)


def test_a_batch_has_every_form_of_input(serve: Any, ask: Ask) -> None:
    image = encode()
    texts = [ask(image, ""), ask(base64.b64encode(image), "text/plain", id="r2")]
    served = serve("image_classifier", MEANS)
    one, other = (read(answer) for answer in served.predict(texts))
    assert one == other


def test_one_bad_image_fails_alone(serve: Any, ask: Ask) -> None:
    served = serve("image_classifier", MEANS)
    requests = [ask(encode(), ""), ask(b"no image", "", id="r2"), ask(encode(), "", id="r3")]
    assert [one.status for one in served.predict(requests)] == [200, 503, 200]


def test_numbers_are_a_tensor(serve: Any, ask: Ask) -> None:
    served = serve("image_classifier", MEANS)
    tensor = [[[9.0]], [[0.0]], [[0.0]]]
    assert next(iter(read(served.predict([ask(json.dumps(tensor).encode())])[0]))) == "0"


SUBCLASS = """
from ts.torch_handler.image_classifier import ImageClassifier

class Mine(ImageClassifier):
    topk = 1
    image_processing = staticmethod(lambda image: __import__("torch").ones(3, 1, 1) * image.size[0])

    def postprocess(self, data):
        return data[:, 0].tolist()
"""


def test_a_subclass_has_its_own_transform(serve: Any, ask: Ask) -> None:
    served = serve("handler.py", MEANS, **{"handler.py": SUBCLASS})
    assert read(served.predict([ask(encode(), "")])[0]) == 300.0


def test_objects_above_the_threshold_are_told(serve: Any, ask: Ask) -> None:
    served = serve("object_detector", BOXES, {"object_type_names": ["-", "person", "car"]})
    requests = [ask(encode(), ""), ask(encode("RGB", (30, 20)), "", id="r2")]
    first, second = (read(one) for one in served.predict(requests))
    assert first[-1] == {"car": [0.0, 0.0, 300.0, 200.0], "score": pytest.approx(0.9)}
    assert second[-1]["car"] == [0.0, 0.0, 30.0, 20.0], "images of a batch may differ in size"
    assert all(one["score"] >= 0.5 for one in first + second)


def test_every_pixel_has_a_class(serve: Any, ask: Ask) -> None:
    answer = read(serve("image_segmenter", PIXELS).predict([ask(encode(), "")])[0])
    pixels = torch.tensor(answer)
    assert pixels.shape == (224, 224, 2)
    assert set(pixels[:, :, 0].unique().tolist()) <= {0.0, 1.0, 2.0}


def test_densenet_takes_and_returns_tensors(serve: Any, ask: Ask) -> None:
    buffer = io.BytesIO()
    torch.save(torch.ones(3, 2, 2), buffer)
    requests = [ask(buffer.getvalue(), ""), ask(buffer.getvalue(), "", id="r2")]
    for answer in serve("densenet_handler", MEANS).predict(requests):
        assert torch.load(io.BytesIO(answer.body)).tolist() == [[1.0, 1.0, 1.0]]


def test_an_explanation_is_as_large_as_the_tensor(serve: Any, ask: Ask) -> None:
    pytest.importorskip("captum")
    served = serve("image_classifier", MEANS)
    requests = [ask(encode(), ""), ask(encode(), "", id="r2", explain=True)]
    predicted, explained = (read(one) for one in served.predict(requests))
    assert isinstance(predicted, dict), "an explanation in a batch makes no explanation of others"
    assert torch.tensor(explained).shape == (3, 224, 224)


def test_without_captum_an_explanation_says_what_to_install(
    serve: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    monkeypatch.setitem(sys.modules, "captum", None)
    (answer,) = serve("image_classifier", MEANS).predict([ask(encode(), "", explain=True)])
    assert answer.status == 501
    assert bytes(answer.body).decode().endswith("pip install captum")


@pytest.mark.parametrize("limited", [True, False])
def test_the_limit_of_pixels_is_lifted_if_settings_say_so(
    make_model: MakeModel, load_model: Load, monkeypatch: pytest.MonkeyPatch, *, limited: bool
) -> None:
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setattr(image, "MAX_IMAGE_PIXELS", 1000)
    buffer = io.BytesIO()
    torch.save({"weight": torch.ones(1)}, buffer)
    files = {"model.py": MEANS, "weights.pt": buffer.getvalue()}
    manifest = {"modelFile": "model.py", "serializedFile": "weights.pt"}
    options = make_model(
        files, handler="image_classifier", manifest=manifest, limit_max_image_pixels=limited
    )
    load_model(options)
    assert (1000 if limited else None) == image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("name", ["dali_image_classifier", "vllm_handler", "trt_llm_handler"])
def test_the_handlers_of_engines_say_what_to_do(serve: Any, name: str) -> None:
    with pytest.raises(
        Exception, match=rf"default handler '{name}'.*pip install.*hatch-mar has none"
    ):
        serve(name, MEANS)
