"""English contractions and what they are short for, as TorchServe's text handlers expand them.

TorchServe has a longer list, in which the longer of two contractions with the same beginning
(`can't've`) is never found: the shorter one is tried first. Those are left out here.
"""

from __future__ import annotations

import re

WORDS_BY_ENDING = {
    ("n't", " not"): "are could did does do had has have is may might must need ought should was "
    "were would",
    ("'ve", " have"): "could i might must should so they to we what when where who why will would "
    "you",
    ("'d", " would"): "he i it she that there they we you",
    ("'d", " did"): "how where",
    ("'ll", " will"): "he how i it she they we what who you",
    ("'s", " is"): "he how it she that there what when where who why",
    ("'re", " are"): "they we what you",
}
"""The regular ones: the words before an ending, and what stands for the ending."""

IRREGULAR = {
    "ain't": "is not",
    "can't": "cannot",
    "'cause": "because",
    "i'm": "i am",
    "let's": "let us",
    "ma'am": "madam",
    "o'clock": "of the clock",
    "shan't": "shall not",
    "sha'n't": "shall not",
    "so's": "so as",
    "won't": "will not",
    "y'all": "you all",
}

CONTRACTION_MAP = IRREGULAR | {
    word + ending: word + meaning
    for (ending, meaning), words in WORDS_BY_ENDING.items()
    for word in words.split()
}
"""Every contraction, in lower case; none is the beginning of another."""

CONTRACTIONS_PATTERN = re.compile("|".join(map(re.escape, CONTRACTION_MAP)), re.IGNORECASE)


def expand_contractions(text: str) -> str:
    """Return `text` with its contractions written out, and without apostrophes.

    As in TorchServe a contraction is found inside a word, too, and what stands for it begins with
    its own first character: "Ain't" becomes "As not".
    """
    return CONTRACTIONS_PATTERN.sub(_expand, text).replace("'", "")


def _expand(found: re.Match[str]) -> str:
    contraction = found[0]
    return contraction[0] + CONTRACTION_MAP[contraction.lower()][1:]
