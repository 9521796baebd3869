"""Text becomes words: the `basic_english` tokens and the n-grams of torchtext."""

from __future__ import annotations

import re
import string
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLEANUP_REGEX = re.compile("<.*?>|&([a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});")
"""Tags of HTML, and its entities."""

APART = str.maketrans({mark: f" {mark} " for mark in "'.,()!?"} | {";": " ", ":": " "})
"""Marks that are tokens of their own, and those that only separate."""
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def remove_accents(text: str) -> str:
    """Return `text` in ASCII: letters without their accents, nothing of what has no ASCII form."""
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def split_basic_english(line: str) -> list[str]:
    """Return the words and marks of `line`, in lower case."""
    return line.lower().replace('"', "").replace("<br />", " ").translate(APART).split()


def get_tokenizer(
    tokenizer: str | Callable[[str], list[str]] | None, language: str = "en"
) -> Callable[[str], list[str]]:
    """Return the function that a name of torchtext's stands for: `basic_english`, or None.

    Raises:
        ValueError: there is no such tokenizer here, or none for `language`.
    """
    if tokenizer is None:
        return str.split
    if callable(tokenizer):
        return tokenizer
    if tokenizer != "basic_english":
        raise ValueError(f"tokenizer {tokenizer!r}: only 'basic_english' is known")
    if language != "en":
        raise ValueError(f"tokenizer 'basic_english': English only, not {language!r}")
    return split_basic_english


def ngrams_iterator(token_list: Sequence[str], ngrams: int) -> Iterator[str]:
    """Yield the tokens, then every two neighbours joined by a space, and so on up to `ngrams`."""
    yield from token_list
    for length in range(2, ngrams + 1):
        for start in range(len(token_list) - length + 1):
            yield " ".join(token_list[start : start + length])
