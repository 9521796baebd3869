"""A model without weights, in a project without a Python package."""

from pathlib import Path

LOUD = set((Path(__file__).parent / "words" / "loud.txt").read_text().split())


def handle(data, context):
    if data is None:
        return None
    return [shout(row.get("body") or row.get("data")) for row in data]


def shout(body):
    words = bytes(body).decode().split()
    return " ".join(word.upper() if word in LOUD else word for word in words)
