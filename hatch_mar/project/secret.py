"""Secrets in URLs: an archive shows what it says to everybody who has it."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

from hatch_mar.weights.uri import HUB_TOKEN, redact

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
PASSWORD = re.compile(r"//[^/@]*:[^/@]+@")
VARIABLE = re.compile(r"\$\{[A-Z0-9_]+\}")
"""What pip fills in from the environment, in a requirements file."""
PARAMETER = re.compile(
    r"(?:.*[-_])?(?:token|secret|password|passwd|pwd|sig|signature|credentials?|jwt"
    r"|(?:api|access|auth|account|private|shared)[-_]?key)"
)
"""Query parameters that let in whoever has them: plain tokens, and the signed URLs of clouds."""
USER_IS_NONE = re.compile(r"(?:git\+)?https?")
"""Schemes in which a name alone before the `@` is a token; elsewhere it may be a container."""


def find_secret(url: str) -> str | None:
    """Return what in `url` looks like a secret, without telling it; None if nothing does.

    Placeholders such as `${TOKEN}` are none.
    """
    try:
        parts = urlsplit(url)
    except ValueError:  # what it would be if somebody corrected it
        return "a password" if PASSWORD.search(url) else None
    user, colon, password = parts.netloc.rpartition("@")[0].partition(":")
    if colon and password and not VARIABLE.fullmatch(password):
        return "a password"
    if user and not colon and USER_IS_NONE.fullmatch(parts.scheme) and not VARIABLE.fullmatch(user):
        return "a user's name or token"
    if parts.scheme == "hf" and HUB_TOKEN.search(user):
        return "a token of the Hub"
    for name, value in parse_qsl(parts.query):
        if PARAMETER.fullmatch(name.lower()) and not VARIABLE.fullmatch(value):
            return f"`{name}`"
    return None


def conceal(text: str) -> str:
    """Return `text` without the secrets in its URLs."""
    return URL.sub(lambda found: redact(found[0]) if find_secret(found[0]) else found[0], text)
