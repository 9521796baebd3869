"""`ts.handler_utils.text_utils`."""

from __future__ import annotations

from hatch_mar.model.handlers.tokens import get_tokenizer, ngrams_iterator

__all__ = ["get_tokenizer", "ngrams_iterator"]
