"""`MAR-INF/SEAL.json`: everything of ours in an archive.

TorchServe never looks at it. It says what each member's bytes must be, which weights are elsewhere,
and which golden examples the model must answer before it may call itself ready.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from hatch_mar.errors import ArchiveError
from hatch_mar.weights.reference import Reference

SEAL_NAME = "MAR-INF/SEAL.json"
SEAL_SCHEMA = 1
EXAMPLES_DIRECTORY = "MAR-INF/examples"


@dataclass(frozen=True, slots=True)
class Digest:
    """What a member's bytes must be."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A golden example: send `input`, expect `output`."""

    input: str
    """Member name of the request body."""
    output: str
    """Member name of the expected answer: JSON is compared by value, anything else by bytes."""
    content_type: str
    """Content type sent with the input, such as `image/png`."""
    rtol: float = 1e-4
    atol: float = 1e-6
    policy: Literal["fail", "warn"] = "fail"

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which the seal holds it."""
        return {
            "input": self.input,
            "output": self.output,
            "contentType": self.content_type,
            "rtol": self.rtol,
            "atol": self.atol,
            "policy": self.policy,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Example:
        """Read back what `as_dict` wrote."""
        return cls(
            input=raw["input"],
            output=raw["output"],
            content_type=raw["contentType"],
            rtol=float(raw["rtol"]),
            atol=float(raw["atol"]),
            policy=raw["policy"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """The whole file."""

    name: str
    version: str
    runtime: str
    """How the model is loaded: `eager`, `torchscript`, `onnx`, ..., `custom`."""
    members: Mapping[str, Digest]
    """Every member but the seal itself, by name."""
    references: tuple[Reference, ...] = ()
    examples: tuple[Example, ...] = ()
    trusted_pickle: tuple[str, ...] = ()
    """Weights that the author lets `torch.load` unpickle without restriction."""
    platform: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Serialise canonically: the same seal is the same bytes."""
        value = {
            "schema": SEAL_SCHEMA,
            "name": self.name,
            "version": self.version,
            "runtime": self.runtime,
            "members": {
                name: {"sha256": digest.sha256, "size": digest.size}
                for name, digest in self.members.items()
            },
            "references": [reference.as_dict() for reference in self.references],
            "examples": [example.as_dict() for example in self.examples],
            "trustedPickle": list(self.trusted_pickle),
            "platform": dict(self.platform),
        }
        return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Seal:
        """Read a seal.

        Raises:
            ArchiveError: not a seal, or one of a newer schema than this release knows.
        """
        try:
            raw = json.loads(data)
            if raw["schema"] != SEAL_SCHEMA:
                raise ArchiveError(
                    f"{SEAL_NAME}: schema {raw['schema']}: this hatch-mar reads schema "
                    f"{SEAL_SCHEMA}; upgrade hatch-mar"
                )
            return cls(
                name=raw["name"],
                version=raw["version"],
                runtime=raw["runtime"],
                members={
                    name: Digest(entry["sha256"], entry["size"])
                    for name, entry in raw["members"].items()
                },
                references=tuple(Reference.from_dict(entry) for entry in raw["references"]),
                examples=tuple(Example.from_dict(entry) for entry in raw["examples"]),
                trusted_pickle=tuple(raw["trustedPickle"]),
                platform=raw["platform"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArchiveError(f"{SEAL_NAME}: not a seal: {error!r}") from error
