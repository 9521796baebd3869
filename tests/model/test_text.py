"""The default handler of text: from a request's words to the answer."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.errors import HandlerError
from hatch_mar.model.handlers.contractions import CONTRACTION_MAP, expand_contractions
from hatch_mar.model.handlers.tokens import (
    CLEANUP_REGEX,
    get_tokenizer,
    ngrams_iterator,
    remove_accents,
)

if TYPE_CHECKING:
    from tests.support.models import Ask, Load, MakeModel

torch = pytest.importorskip("torch")

NETWORK = """
import torch

class Text(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(16, 2, mode="sum")

    def forward(self, text, offsets):
        return self.embedding(text, offsets)
"""
ONE = NETWORK.replace(
    "return self.embedding(text, offsets)", "return self.embedding(text, offsets[:1])"
)
WORDS = ["we", "won", "the", "match", "do", "not", "we", "won", "won", "the", "the", "match", "do"]


@pytest.fixture
def serve(make_model: MakeModel, load_model: Load) -> Any:
    def load(network: str = NETWORK, vocabulary: Any = None, **manifest: str) -> Any:
        files: dict[str, Any] = {"model.py": network, "index_to_name.json": '{"0": "a", "1": "b"}'}
        weights = torch.linspace(-1, 1, 32).reshape(16, 2) ** 3
        files["weights.pt"] = _save({"embedding.weight": weights})
        name = manifest.get("sourceVocab", "source_vocab.pt")
        if vocabulary is not None:
            files[name] = _save(vocabulary)
        told = {"modelFile": "model.py", "serializedFile": "weights.pt", **manifest}
        return load_model(make_model(files, handler="text_classifier", manifest=told))

    return load


def _save(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def vocabulary() -> dict[str, int]:
    words = list(dict.fromkeys(WORDS))
    pairs = [f"{one} {other}" for one in words for other in words]
    return {token: number % 16 for number, token in enumerate(words + pairs)}


def read(response: Any) -> Any:
    assert response.status == 200, bytes(response.body)
    return json.loads(bytes(response.body))


TEXTS = [b"We won!", b"the match", b"<i>Don't</i> do the match", b"we"]


@pytest.mark.parametrize("network", [NETWORK, ONE], ids=["offsets", "one-at-a-time"])
def test_a_batch_answers_each_text_as_if_it_were_alone(serve: Any, ask: Ask, network: str) -> None:
    served = serve(network, vocabulary())
    requests = [ask(text, "text/plain", id=f"r{n}") for n, text in enumerate(TEXTS)]
    together = [read(one) for one in served.predict(requests)]
    alone = [read(served.predict([one])[0]) for one in requests]
    assert together == [
        {label: pytest.approx(value) for label, value in one.items()} for one in alone
    ]
    assert len({tuple(one.values()) for one in alone}) == len(TEXTS)


@pytest.mark.parametrize("bad", [b"unknown", b"", b"...", b"\xff"])
def test_a_text_that_cannot_be_read_fails_alone(serve: Any, ask: Ask, bad: bytes) -> None:
    requests = [ask(b"we won", ""), ask(bad, "", id="r2"), ask(b"the match", "", id="r3")]
    served = serve(vocabulary=vocabulary())
    assert [one.status for one in served.predict(requests)] == [200, 503, 200]


def test_an_old_archives_vocabulary_is_named_by_its_manifest(serve: Any, ask: Ask) -> None:
    served = serve(vocabulary=vocabulary(), sourceVocab="words.pt")
    assert read(served.predict([ask(b"we won", "")])[0])


def test_without_a_vocabulary_no_model(serve: Any) -> None:
    with pytest.raises(HandlerError, match=r"source_vocab\.pt: not in the archive"):
        serve()


def test_a_vocabulary_that_needs_unpickling_is_refused(serve: Any) -> None:
    with pytest.raises(HandlerError, match=r"source_vocab\.pt: cannot be loaded.*plain dict"):
        serve(vocabulary=print)


def test_an_explanation_has_the_words(serve: Any, ask: Ask) -> None:
    pytest.importorskip("captum")
    served = serve(vocabulary=vocabulary())
    answer = read(served.predict([ask(b"We won", "", explain=True)])[0])
    assert list(answer) == ["importances", "words"]
    assert answer["words"] == ["we", "won"]


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("I'd won't can't've", "I would will not cannotve"),
        ("ain't 'cause y'all", "as not ecause you all"),
        ("the dog's o'clock", "the dogs of the clock"),
        ("SHAN'T", "Shall not"),
    ],
)
def test_contractions_are_expanded_quirks_included(text: str, expanded: str) -> None:
    assert expand_contractions(text) == expanded


def test_no_contraction_hides_another() -> None:
    hidden = [
        (one, other)
        for one in CONTRACTION_MAP
        for other in CONTRACTION_MAP
        if one != other and other.startswith(one)
    ]
    assert hidden == []


def test_tokens_are_torchtexts() -> None:
    split = get_tokenizer("basic_english")
    assert split('You can, "now" (install) it\'s<br />fine: x; y!') == (
        ["you", "can", ",", "now", "(", "install", ")", "it", "'", "s", "fine", "x", "y", "!"]
    )
    assert get_tokenizer(None)("A  b") == ["A", "b"]
    assert get_tokenizer(split) is split


@pytest.mark.parametrize("arguments", [("moses",), ("basic_english", "de")])
def test_other_tokenizers_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match="tokenizer"):
        get_tokenizer(*arguments)


def test_ngrams_follow_the_tokens() -> None:
    assert list(ngrams_iterator(["here", "we", "are"], 2)) == [
        "here",
        "we",
        "are",
        "here we",
        "we are",
    ]


def test_cleaning() -> None:
    assert CLEANUP_REGEX.sub("", "<p>a&amp;b&#39;</p>") == "ab"
    assert remove_accents("Café ñandú €") == "Cafe nandu "
