"""`TextHandler`: a vocabulary, and what makes tokens of text."""

# ruff: noqa: ANN401 - models and tensors come from a library that is loaded lazily

from __future__ import annotations

import importlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatch_mar.errors import HandlerError
from hatch_mar.model.base_handler import BaseHandler
from hatch_mar.model.factory import is_trusted
from hatch_mar.model.handlers.contractions import expand_contractions
from hatch_mar.model.handlers.explanations import load_captum
from hatch_mar.model.handlers.tokens import (
    CLEANUP_REGEX,
    NO_PUNCTUATION,
    get_tokenizer,
    remove_accents,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.context import Context

VOCABULARY_FILE = "source_vocab.pt"


class Texts(tuple[Any, list[str]]):  # noqa: SLOT001 - a tuple has no slots for more
    """`(numbers, tokens)` of texts, joined; a pair, because handlers derived from it unpack it."""

    lengths: Sequence[int]
    """Of each text, in numbers."""


class TextHandler(BaseHandler):
    """Base of the handlers of text."""

    def __init__(self) -> None:
        """Know no words yet."""
        super().__init__()
        self.source_vocab: Any = None
        self.tokenizer = get_tokenizer("basic_english")
        self.input_text: Any = None

    def initialize(self, context: Context) -> None:
        """Load the model, then the vocabulary: the number of each token.

        Raises:
            HandlerError: there is no vocabulary, or it needs unpickling that nobody allowed.
        """
        super().initialize(context)
        self.initialized = False
        described = (self.manifest or {}).get("model") or {}
        directory = Path(context.system_properties["model_dir"])
        named = described.get("sourceVocab")  # of archives older than TorchServe 0.6
        path = directory / named if named else Path(self.get_source_vocab_path(context))
        self.source_vocab = _load_vocabulary(path, trusted=is_trusted(path, directory, context))
        self.initialized = True

    def get_source_vocab_path(self, ctx: Context) -> str:
        """Return where the vocabulary is.

        Raises:
            HandlerError: there is none.
        """
        path = Path(ctx.system_properties["model_dir"]) / VOCABULARY_FILE
        if not path.is_file():
            raise HandlerError(
                f"{VOCABULARY_FILE}: not in the archive; a handler of text needs it: a dict of "
                "tokens and their numbers, written by torch.save"
            )
        return str(path)

    @cached_property
    def lig(self) -> Any:
        """Captum's LayerIntegratedGradients of the model's `embedding`."""
        return load_captum().LayerIntegratedGradients(self.model, self.model.embedding)

    def _expand_contractions(self, text: str) -> str:
        return expand_contractions(text)

    def _remove_accented_characters(self, text: str) -> str:
        return remove_accents(text)

    def _remove_html_tags(self, text: str) -> str:
        return CLEANUP_REGEX.sub("", text)

    def _remove_punctuation(self, text: str) -> str:
        return text.translate(NO_PUNCTUATION)

    def _remove_puncutation(self, text: str) -> str:
        """Do the same under the name that TorchServe's first version had."""
        return self._remove_punctuation(text)

    def _tokenize(self, text: str) -> list[str]:
        return self.tokenizer(text)

    def get_word_token(self, input_tokens: Sequence[str]) -> list[str]:
        """Return the tokens without the mark that a BPE tokenizer has for a space."""
        return [token.replace("Ġ", "") for token in input_tokens]

    def summarize_attributions(self, attributions: Any) -> Any:
        """Return the softmax of `attributions`, divided by the norm of its sums."""
        torch: Any = importlib.import_module("torch")
        across = 1 if attributions.dim() in (2, 4) else 0  # torch's rule where nobody says which
        attributions = torch.softmax(attributions, dim=across)
        return attributions / torch.linalg.norm(attributions.sum(dim=-1))


def _load_vocabulary(path: Path, *, trusted: bool) -> Any:
    """Return what is in `path`: a mapping, or whatever else has a number for each token."""
    torch: Any = importlib.import_module("torch")
    try:
        return torch.load(path, map_location="cpu", weights_only=not trusted)
    except FileNotFoundError:
        raise HandlerError(f"{path.name}: not in the archive, but its manifest names it") from None
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        raise HandlerError(
            f"{path.name}: cannot be loaded: {first} Save a plain dict of tokens and their "
            "numbers, or name the file under trusted-pickle"
        ) from error
