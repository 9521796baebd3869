"""`MAR-INF/SEAL.json`: everything of ours in an archive.

TorchServe never looks at it. It says what each member's bytes must be, which weights are elsewhere,
and which golden examples the model must answer before it may call itself ready.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hatch_mar.archive.manifest import parse_json
from hatch_mar.archive.names import find_flaw
from hatch_mar.errors import ArchiveError
from hatch_mar.weights.digest import is_sha256
from hatch_mar.weights.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping

SEAL_NAME = "MAR-INF/SEAL.json"
SEAL_SCHEMA = 1
EXAMPLES_DIRECTORY = "MAR-INF/examples"


@dataclass(frozen=True, slots=True)
class Digest:
    """What a member's bytes must be."""

    sha256: str
    size: int
    executable: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which the seal holds it."""
        value: dict[str, Any] = {"sha256": self.sha256, "size": self.size}
        return {**value, "executable": True} if self.executable else value

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Digest:
        """Read back what `as_dict` wrote.

        Raises:
            ValueError: the digest is not 64 lower-case hex digits, or the size is no size.
        """
        sha256, size = raw["sha256"], raw["size"]
        if not is_sha256(sha256):
            raise ValueError(f"{sha256!r} is not a sha256")
        if type(size) is not int or size < 0:
            raise ValueError(f"{size!r} is not a size")
        return cls(sha256, size, executable=raw.get("executable") is True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """How the archive was packed: what it takes to write the same file again from its members."""

    format: Literal["mar", "tgz", "dir"] = "mar"
    compression: Literal["stored", "deflated"] = "stored"
    filename: str = ""

    def as_dict(self) -> dict[str, str]:
        """Return the form in which the seal holds it."""
        return {
            "format": self.format,
            "compression": self.compression,
            "filename": self.filename,
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Packing:
        """Read back what `as_dict` wrote.

        Raises:
            ValueError: a format or compression that we never write, or a file name with a path.
        """
        if raw["format"] not in {"mar", "tgz", "dir"}:
            raise ValueError(f"format {raw['format']!r}")
        if raw["compression"] not in {"stored", "deflated"}:
            raise ValueError(f"compression {raw['compression']!r}")
        filename = _text(raw, "filename")
        if filename and ("/" in filename or find_flaw(filename) is not None):
            raise ValueError(f"file name {filename!r}")
        return cls(format=raw["format"], compression=raw["compression"], filename=filename)


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
        """Read back what `as_dict` wrote.

        Raises:
            ValueError: a tolerance that tolerates everything, or a policy that we never write.
        """
        rtol, atol = float(raw["rtol"]), float(raw["atol"])
        if not (math.isfinite(rtol) and math.isfinite(atol) and min(rtol, atol) >= 0):
            raise ValueError(f"tolerances {rtol} and {atol}")
        if raw["policy"] not in ("fail", "warn"):
            raise ValueError(f"policy {raw['policy']!r}")
        return cls(
            input=_text(raw, "input"),
            output=_text(raw, "output"),
            content_type=_text(raw, "contentType"),
            rtol=rtol,
            atol=atol,
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
    packing: Packing = field(default_factory=Packing)

    def to_json(self) -> bytes:
        """Serialise canonically: the same seal is the same bytes."""
        value = {
            "schema": SEAL_SCHEMA,
            "name": self.name,
            "version": self.version,
            "runtime": self.runtime,
            "members": {name: digest.as_dict() for name, digest in self.members.items()},
            "references": [reference.as_dict() for reference in self.references],
            "examples": [example.as_dict() for example in self.examples],
            "trustedPickle": list(self.trusted_pickle),
            "platform": dict(self.platform),
            "archive": self.packing.as_dict(),
        }
        return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes) -> Seal:
        """Read a seal.

        Raises:
            ArchiveError: not a seal, or one of a newer schema than this release knows.
        """
        try:
            raw = parse_json(data)
            if raw["schema"] != SEAL_SCHEMA:
                raise ArchiveError(
                    f"{SEAL_NAME}: schema {raw['schema']}: this hatch-mar reads schema "
                    f"{SEAL_SCHEMA}; upgrade hatch-mar"
                )
            return cls(
                name=_text(raw, "name"),
                version=_text(raw, "version"),
                runtime=_text(raw, "runtime"),
                members={name: Digest.from_dict(entry) for name, entry in raw["members"].items()},
                references=tuple(Reference.from_dict(entry) for entry in _list(raw, "references")),
                examples=tuple(Example.from_dict(entry) for entry in _list(raw, "examples")),
                trusted_pickle=tuple(map(_check_text, _list(raw, "trustedPickle"))),
                platform={key: _check_text(fact) for key, fact in raw["platform"].items()},
                packing=Packing.from_dict(raw["archive"]),
            )
        except UnicodeError:  # which would quote all of it
            raise ArchiveError(
                f"{SEAL_NAME}: not a seal: it has characters that are none"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArchiveError(f"{SEAL_NAME}: not a seal: {error!r}") from error


def _text(raw: Mapping[str, Any], key: str) -> str:
    return _check_text(raw[key])


def _list(raw: Mapping[str, Any], key: str) -> list[Any]:
    value = raw[key]
    if not isinstance(value, list):
        raise TypeError(f"{key} {value!r}")
    return value


def _check_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value
