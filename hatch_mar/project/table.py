"""`[tool.mar]` as one model: validation, the JSON schema and the reference page all come from it.

The text under each field is its documentation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)

from hatch_mar.project.names import NAME_PATTERN, SCRIPT_TEMPLATE, is_served_name
from hatch_mar.project.serve_keys import serve_schema

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema

UNITS = {
    "B": 1,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
    "KIB": 1024,
    "MIB": 1024**2,
    "GIB": 1024**3,
    "TIB": 1024**4,
}

# Patterns that Python and ECMAScript read alike: the schema has them too.
NOT_EMPTY = r"\S"
SIZE = r"\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kKmMgGtT][iI]?[bB]|[bB]?)\s*"
VERSION = r"[A-Za-z0-9][A-Za-z0-9_.!+-]*"
TAG = r"[A-Za-z0-9_.]+-[A-Za-z0-9_.]+-[A-Za-z0-9_.]+"
CONTENT_TYPE = r"[!-~]+/[!-~]+(;[ -~]*)?"
DIGEST = r"(sha256:)?[0-9A-Fa-f]{64}"


def parse_size(value: str | int) -> int:
    """Return the bytes that `100 MB`, `1.5 GiB` or a plain number of bytes stand for.

    Raises:
        ValueError: not a size.
    """
    if isinstance(value, int):
        if value < 0:
            raise ValueError(f"{value} is not a size")
        return value
    match = re.fullmatch(SIZE, value)
    if match is None:
        raise ValueError(f"'{value}' is not a size; write it like '100 MB' or '2 GiB'")
    return int(float(match[1]) * UNITS[match[2].upper() or "B"])


def weights_tables(value: object) -> object:
    """Bring the three ways to write `weights` into one: a list of tables."""
    if isinstance(value, str):
        return [{"source": value}]
    if isinstance(value, Mapping):
        return [dict(value)]
    if isinstance(value, list):
        return [{"source": entry} if isinstance(entry, str) else entry for entry in value]
    return value


def _served_name(value: str) -> str:
    if not is_served_name(value):
        raise ValueError(
            f"'{value}' cannot be served under that name; it must begin with a letter and hold "
            "only letters, digits, '_', '.' and '-'"
        )
    return value


def _served_version(value: str) -> str:
    if not re.fullmatch(VERSION, value):
        raise ValueError(
            f"'{value}' cannot be part of a URL; it must begin with a letter or digit and hold "
            "only letters, digits, '_', '.', '!', '+' and '-'"
        )
    return value


def _tag(value: str) -> str:
    if value != "auto" and not re.fullmatch(TAG, value):
        raise ValueError(f"'{value}' is not a wheel's tag; write it like 'py3-none-any'")
    return value


def _content_type(value: str) -> str:
    if not re.fullmatch(CONTENT_TYPE, value):
        raise ValueError(f"'{value}' is not a content type; write it like 'image/png'")
    return value


def _digest(value: str) -> str:
    if not re.fullmatch(DIGEST, value):
        raise ValueError(f"'{value}' is not a sha256; it has 64 hex digits (`sha256sum FILE`)")
    return value.removeprefix("sha256:").lower()


def _size(value: str | int) -> str | int:
    parse_size(value)
    return value


def _not_empty(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return value


def _like(pattern: str) -> WithJsonSchema:
    """Return what the schema says of a string: all of it matches, in Python and in ECMAScript."""
    return WithJsonSchema({"type": "string", "pattern": f"^(?:{pattern})$"})


class _OneOrMore:
    """What the schema says of `weights`: every way to write it that `weights_tables` knows."""

    @staticmethod
    def __get_pydantic_json_schema__(
        core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        table = handler(core_schema)["items"]
        path = {"type": "string", "pattern": NOT_EMPTY}
        return {"anyOf": [path, table, {"type": "array", "items": {"anyOf": [path, table]}}]}


Text = Annotated[
    str, AfterValidator(_not_empty), WithJsonSchema({"type": "string", "pattern": NOT_EMPTY})
]
Name = Annotated[str, AfterValidator(_served_name), _like(NAME_PATTERN.pattern)]
Version = Annotated[str, AfterValidator(_served_version), _like(VERSION)]
Tag = Annotated[str, AfterValidator(_tag), _like(f"auto|{TAG}")]
ContentType = Annotated[str, AfterValidator(_content_type), _like(CONTENT_TYPE)]
Digest = Annotated[str, AfterValidator(_digest), _like(DIGEST)]
Size = Annotated[
    str | int,
    AfterValidator(_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": f"^(?:{SIZE})$"},
            ]
        }
    ),
]


class _Table(BaseModel):
    """What every table shares: kebab-case keys, nothing unknown, nothing silently converted."""

    model_config = ConfigDict(
        alias_generator=lambda name: name.replace("_", "-"),
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        strict=True,
        use_attribute_docstrings=True,
    )


class WeightsTable(_Table):
    """One file of weights."""

    source: Text
    """Path in the project, absolute path on a disk that servers share, or URI (`https://`,
    `http://`, `s3://`, `gs://`, `az://`, `hf://org/repo@revision/file`, `file://`)."""
    target: Text | None = None
    """Path in the model directory; the source's own file name if left out."""
    place: Literal["auto", "embed", "reference"] = "auto"
    """In the archive, or named by it; `auto`: what is elsewhere is named, what is in the project
    goes in up to `wheel.embed-limit`."""
    sha256: Digest | None = None
    """What the file's bytes must be. A reference needs it, here or in mar.lock."""
    size: Annotated[int, Field(ge=0)] | None = None
    """Bytes."""
    mirrors: list[Text] = []
    """Further URIs or absolute paths of the same bytes, tried in order."""
    primary: bool = False
    """Whether this is the file that the handler loads; the first one if none says so."""
    trusted_pickle: bool = False
    """Let `torch.load` unpickle anything that this file holds: it may then run any code."""


class ExtraTable(_Table):
    """One entry of `extra-files` that says where its files go."""

    from_: Text = Field(alias="from")
    """A file, a folder or a glob, from the project's root."""
    to: Text
    """Path in the model directory; a folder if it ends with `/` or `from` is more than one file."""


class SystemTable(_Table):
    """The `system` section of model-config.yaml."""

    extra_files: str | list[Text] | None = None
    """Archives (tar, tar.gz or zip, told apart by content) that are unpacked beside the handler
    before it is imported; one that does not exist is packed if `extra-layout` is `tarball`."""
    max_gpu_memory: Annotated[int, Field(gt=0)] | None = None
    """MB of GPU memory that one worker may take."""
    decode_images: Literal["auto", "never", "always"] | None = None
    """When an image body reaches `preprocess_function` as a PIL image."""


class ExampleTable(_Table):
    """One golden example."""

    input: Text
    """File with the request's body."""
    output: Text
    """File with the expected answer: JSON is compared by value, anything else by bytes."""
    content_type: ContentType | None = None
    """Content type sent with the input; guessed from the input's suffix if left out."""
    rtol: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-4
    """Relative tolerance of numbers."""
    atol: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
    """Absolute tolerance of numbers."""
    policy: Literal["fail", "warn"] = "fail"
    """What a wrong answer does to a model that starts."""


class ArchiveTable(_Table):
    """The archive that a build leaves beside the wheel."""

    enabled: bool = True
    """Whether a build of the wheel leaves an archive at all."""
    directory: str = "."
    """Where it goes, relative to the build's own directory."""
    filename: Text | None = None
    """`{name}-{version}` and the format's suffix, unless set."""
    format: Literal["mar", "tgz", "dir"] = "mar"
    """One file for TorchServe, a `.tar.gz`, or a directory."""
    compression: Literal["stored", "deflated"] = "stored"
    """Weights hardly shrink: stored is as fast as the disk, and the same bytes everywhere."""


class WheelTable(_Table):
    """What the wheel carries."""

    embed: Literal["auto", "always", "never"] = "auto"
    """Whether local weights may be embedded: up to `embed-limit`, always, or never."""
    embed_limit: Size = "100 MB"
    """Above this, a local file needs an explicit `place = "embed"` or a URI."""
    script: str | bool = SCRIPT_TEMPLATE
    """Name of the console script, with `{name}` for the model's; false for none."""
    tag: Tag = "auto"
    """The wheel's tag, such as `py3-none-any`."""


class MarTable(_Table):
    """What the archive and the wheel of a model hold."""

    name: Name | None = None
    """Served name; the project's own if left out."""
    version: Version | None = None
    """Served version; the project's own if left out."""
    description: str | None = None
    """One line about the model; the project's own if left out."""
    handler: Text | None = None
    """A default handler's name, `file.py`, `file.py:object`, or `package.module:object` of the
    project or of an installed package; `handler.py` if that exists."""
    packages: list[Text] | None = None
    """Python packages of the project, copied into the archive as trees; the handler's own if it
    lives in one."""
    model_file: Text | None = None
    """Python file with the architecture of an eager model."""
    model_class: Text | None = None
    """The class in it, where it has several."""
    model_args: dict[str, Any] = {}
    """Keyword arguments for that class. Needs `model-file`."""
    weights: Annotated[list[WeightsTable], BeforeValidator(weights_tables), _OneOrMore()] = []
    """A path, a table, or an array of either."""
    runtime: Literal[
        "auto", "eager", "torchscript", "onnx", "tensorrt", "exported", "aoti", "custom"
    ] = "auto"
    """How the model is loaded; `auto` tells by the handler and the files."""
    extra_files: list[Text | ExtraTable] = []
    """Files that the handler needs: globs, or tables of `from` and `to`."""
    extra_layout: Literal["tree", "tarball", "flat"] = "tree"
    """Keep their paths, pack them into one tarball, or put all side by side."""
    requirements: Text | list[Text] = "project"
    """`project` for the project's dependencies, a file, or a list."""
    config: Text | None = None
    """TorchServe's own file; `model-config.yaml` if that exists."""
    serve: Annotated[dict[str, Any], WithJsonSchema(serve_schema())] = {}
    """Keys of that file in kebab-case, laid over it. The same key with two values is an error."""
    system: SystemTable = SystemTable()
    """The `system` section of that file."""
    examples: list[ExampleTable] = []
    """Inputs, and the answers that a model must give before it calls itself ready."""
    archive: ArchiveTable = ArchiveTable()
    wheel: WheelTable = WheelTable()
