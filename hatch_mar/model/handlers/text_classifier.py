"""`TextClassifier`: what a text is about."""

# ruff: noqa: ANN401 - tensors come from a library that is loaded lazily

from __future__ import annotations

import importlib
import itertools
from typing import TYPE_CHECKING, Any

from hatch_mar.model.handlers.text import TextHandler, Texts
from hatch_mar.model.handlers.tokens import ngrams_iterator
from hatch_mar.model.labels import map_class_to_label

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class TextClassifier(TextHandler):
    """Answers `{label: probability}`, in the order of the classes.

    The model is called with the numbers of all tokens and 2-grams, and the offset of each text.
    """

    ngrams = 2

    def preprocess(self, data: Sequence[Mapping[str, Any]]) -> Any:
        """Return the texts' numbers and tokens."""
        torch: Any = importlib.import_module("torch")
        texts = [self._split(row) for row in data]
        numbers = [
            [self.source_vocab[token] for token in ngrams_iterator(tokens, self.ngrams)]
            for tokens in texts
        ]
        if not all(numbers):
            raise ValueError("a text without words cannot be classified")
        joined = torch.as_tensor(list(itertools.chain(*numbers)), device=self.device)
        batch = Texts((joined, list(itertools.chain(*texts))))
        batch.lengths = [len(one) for one in numbers]
        return batch

    def _split(self, row: Mapping[str, Any]) -> list[str]:
        """Return the tokens of a row's text, cleaned up."""
        text: Any = row.get("data") or row.get("body")
        if isinstance(text, bytes | bytearray):
            text = text.decode("utf-8")
        text = self._remove_html_tags(text).lower()
        text = self._expand_contractions(text)
        text = self._remove_accented_characters(text)
        return self._tokenize(self._remove_punctuation(text))

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - the hook's signature
        """Return the logits, one row for each text."""
        torch: Any = importlib.import_module("torch")
        numbers, _ = data
        lengths: Sequence[int] = getattr(data, "lengths", (len(numbers),))
        starts = [0, *itertools.accumulate(lengths)][:-1]
        logits = super().inference(numbers, torch.as_tensor(starts, device=self.device))
        if len(logits) == len(lengths):
            return logits
        first = torch.as_tensor([0], device=self.device)  # the model knows but one text
        parts = numbers.split(list(lengths))
        return torch.cat([super(TextClassifier, self).inference(part, first) for part in parts])

    def postprocess(self, data: Any) -> list[Any]:
        """Return the answers for the logits `data`, (texts, classes)."""
        probabilities = importlib.import_module("torch").softmax(data, dim=-1)
        return map_class_to_label(probabilities.tolist(), self.mapping)

    def get_insights(self, text_preprocess: Any, _: Any, target: Any = 0) -> list[Any]:
        """Return `importances`, of what captum attributes to the embedding, and the `words`."""
        torch: Any = importlib.import_module("torch")
        numbers, tokens = text_preprocess
        attributions = self.lig.attribute(
            numbers,
            torch.zeros_like(numbers),
            additional_forward_args=torch.tensor([0]).to(self.device),
            return_convergence_delta=False,
            target=target,
        )
        importances = self.summarize_attributions(attributions).tolist()
        return [{"importances": importances, "words": self.get_word_token(tokens)}]
