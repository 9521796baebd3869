"""What sources in object stores and on the Hub are called, taken apart without asking anybody.

The forms are those of the libraries that read them (s3fs, gcsfs, adlfs, huggingface_hub), so what
works there can be pasted here. Names are taken as they are: no store decodes `%20`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from urllib.parse import quote, unquote

_HUB_KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}
_HUB_NAME = re.compile(r"(?!.*(?:--|\.\.))(?![-.])[A-Za-z0-9._-]{1,96}(?<![-.])(?<!\.git)")
_HUB_REFERENCE = re.compile(r"refs/(?:convert/\w+|pr/\d+)(?=/)")
"""Revisions that may be written with their slashes."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


class AddressError(ValueError):
    """A source that is not written as its store's sources are; the message says how they are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Form:
    """How one kind of object store writes its addresses."""

    container: re.Pattern[str]
    separator: str
    """Between the object's name and its version."""
    version: re.Pattern[str]
    shape: str


_FORMS = {
    "s3": _Form(
        container=re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}"),
        separator="?versionId=",
        version=re.compile(r"[A-Za-z0-9._~-]+"),
        shape="s3://BUCKET/KEY, and ?versionId=... for one version",
    ),
    "gs": _Form(
        container=re.compile(r"[a-z0-9][a-z0-9._-]{0,221}"),
        separator="#",
        version=re.compile(r"[0-9]+"),
        shape="gs://BUCKET/OBJECT, and #GENERATION for one generation",
    ),
    "az": _Form(
        container=re.compile(
            r"(?:[a-z0-9](?:-?[a-z0-9]){2,62}|\$root|\$web)"
            r"(?:@[a-z0-9]{3,24}(?:\.(?:blob|dfs)\.[a-z0-9.-]+)?)?"
        ),
        separator="?versionid=",
        version=re.compile(r"[0-9T:.Z-]+"),
        shape=(
            "az://CONTAINER/BLOB or az://CONTAINER@ACCOUNT.blob.core.windows.net/BLOB, "
            "and ?versionid=... for one version"
        ),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectAddress:
    """An object in a bucket, or a blob in a container: `s3:`, `gs:` and `az:`."""

    scheme: str
    container: str
    """The bucket's or container's name."""
    key: str
    version: str | None = None
    """The version or generation, where the source names one: its bytes never change."""
    account: str | None = None
    """Azure's storage account or its server, where the source names it."""

    @classmethod
    def parse(cls, source: str) -> ObjectAddress:
        """Take `source` apart.

        Raises:
            AddressError: it is not written so.
        """
        scheme, _, rest = source.partition("://")
        form = _FORMS[scheme.lower()]
        container, _, name = rest.partition("/")
        key, separator, version = _split_version(name, form)
        if not form.container.fullmatch(container) or not key or key.endswith("/"):
            raise AddressError(f"names no object; write {form.shape}")
        if separator and not form.version.fullmatch(version):
            raise AddressError(f"names no version that could be; write {form.shape}")
        if "?" in key:
            raise AddressError(f"asks for more than an object; write {form.shape}")
        container, _, account = container.partition("@")
        return cls(
            scheme=scheme.lower(),
            container=container,
            key=key,
            version=version or None,
            account=account or None,
        )

    def at(self, version: str) -> ObjectAddress:
        """Return the address of one version of the same object."""
        return replace(self, version=version)

    def __str__(self) -> str:
        """Return the source as it is written."""
        server = f"{self.container}@{self.account}" if self.account else self.container
        version = f"{_FORMS[self.scheme].separator}{self.version}" if self.version else ""
        return f"{self.scheme}://{server}/{self.key}{version}"


def _split_version(name: str, form: _Form) -> tuple[str, str, str]:
    """Return key, separator and version; a `#` before anything but a number is the key's own."""
    if form.separator == "#":
        key, separator, version = name.rpartition("#")
        return (key, separator, version) if form.version.fullmatch(version) else (name, "", "")
    return name.partition(form.separator)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubAddress:
    """A file in a repository of the Hugging Face Hub."""

    kind: str
    """`model`, `dataset` or `space`."""
    repository: str
    """`org/name`, or `name` alone for the few models that have no owner."""
    revision: str
    """A branch, a tag, a reference or a commit."""
    path: str

    @classmethod
    def parse(cls, source: str) -> HubAddress:
        """Take `hf://[models/|datasets/|spaces/]ORG/REPO[@REVISION]/PATH` apart.

        Without `@REVISION` it is `main`. The few repositories without an owner need it, to be
        told from an owner: `hf://gpt2@main/model.safetensors`.

        Raises:
            AddressError: it is not written so.
        """
        rest = source.partition("://")[2]
        kind, slash, below = rest.partition("/")
        rest = below if slash and kind in _HUB_KINDS else rest
        head, at, tail = rest.partition("@")
        if at and "/" in head.partition("/")[2]:  # an @ in a file's name
            head, at, tail = rest, "", ""
        if at:
            repository, (revision, path) = head, _split_revision(tail)
        else:
            owner, _, below = rest.partition("/")
            name, _, path = below.partition("/")
            repository, revision = f"{owner}/{name}", "main"
        names = repository.split("/")
        well_named = len(names) <= 2 and all(map(_HUB_NAME.fullmatch, names))  # noqa: PLR2004
        if not well_named or not revision or not _is_file(path):
            raise AddressError(
                "names no file on the Hub; write hf://ORG/REPO@REVISION/FILE, "
                "or hf://datasets/ORG/REPO@REVISION/FILE"
            )
        return cls(
            kind=_HUB_KINDS[kind] if slash and kind in _HUB_KINDS else "model",
            repository=repository,
            revision=revision,
            path=path,
        )

    @property
    def is_immutable(self) -> bool:
        """Whether the revision is a commit, which never moves."""
        return _COMMIT.fullmatch(self.revision) is not None

    def at(self, revision: str) -> HubAddress:
        """Return the address of the same file at another revision."""
        return replace(self, revision=revision)

    def __str__(self) -> str:
        """Return the source as it is written."""
        kind = "" if self.kind == "model" else f"{self.kind}s/"
        return f"hf://{kind}{self.repository}@{quote(self.revision, safe='')}/{self.path}"


def _split_revision(tail: str) -> tuple[str, str]:
    """Return the revision and the path of `main/w.pt`, `refs%2Fpr%2F1/w.pt` or `refs/pr/1/w.pt`."""
    found = _HUB_REFERENCE.match(tail)
    revision = found[0] if found else tail.partition("/")[0]
    return unquote(revision), tail[len(revision) + 1 :]


def _is_file(path: str) -> bool:
    return all(part not in {"", ".", ".."} for part in path.split("/")) and not set(path) & {
        "?",
        "#",
    }
