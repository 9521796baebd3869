"""The tag of a wheel: `py3-none-any`, unless the model in it holds machine code.

A tag says where a wheel may be installed (PyPA specification "platform compatibility tags").
Weights and Python source run anywhere; a library, a compiled `.pt2`, a TensorRT engine do not. What
a tag cannot say (the GPU, its driver, the release of TensorRT) the runtime that loads them finds
out.
"""

from __future__ import annotations

import io
import re
import sysconfig
import zipfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hatch_mar.archive.plan import Member
from hatch_mar.archive.unpack import open_extra_files
from hatch_mar.errors import ArchiveError, Problem, ProblemsError
from hatch_mar.plugin.entry_points import PYPROJECT
from hatch_mar.plugin.machine_code import Platform, read_platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.archive.plan import Plan
    from hatch_mar.project.spec import MarSpec

ANY = "py3-none-any"
TORCH_FILES = (".pt2", ".pt", ".pth", ".ts", ".ep")
"""Zip files as torch writes them; those that AOTInductor compiled hold libraries."""
LIBRARY = re.compile(r"\.(so|dylib|dll|pyd)(\.[\d.]+)?$", re.IGNORECASE)
"""Names worth a look within a file of files."""
ENGINE_MAGIC = b"ptrt"
"""How a TensorRT engine starts. It does not say what it runs on: what it was built on."""
COMPILED_RUNTIMES = {"aoti", "tensorrt"}
"""Runtimes whose weights are compiled where they are made."""
EXTENSION = re.compile(r"\.cpython-(\d+)(t?)-[^./]+\.so$|\.cp(\d+)(t?)-[^./]+\.pyd$")
"""Extension modules of one Python: PEP 3149 on Unix, PEP 703's `t`, and CPython's on Windows."""
STABLE_ABI = ".abi3.so"
OLDEST_PYTHON = "cp311"
"""The oldest Python that hatch-mar itself runs on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Machine code in the payload."""

    name: str
    """The member, and behind a colon the file in it."""
    platform: Platform
    python: str = "py3"
    abi: str = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A tag, and the member that it is about."""

    text: str
    because: str = ""
    by_author: bool = False


def choose_tag(spec: MarSpec, plan: Plan) -> Tag:
    """Return the author's tag, or else the narrowest that the payload of `plan` asks for.

    Raises:
        ProblemsError: it holds machine code for two platforms or two Pythons.
        OSError: a member cannot be read.
    """
    if spec.wheel.tag != "auto":
        return Tag(text=spec.wheel.tag, by_author=True)
    found = list(_find_code(spec, plan))
    if not found:
        return Tag(text=ANY)
    platform = found[0].platform
    for each in found[1:]:
        both = platform & each.platform
        if both is None:
            raise _mixed((found[0].name, platform.tag), (each.name, each.platform.tag))
        platform = both
    bound = [each for each in found if each.abi not in ("none", "abi3")]
    other = next((each for each in bound if each.abi != bound[0].abi), None)
    if other is not None:
        raise _mixed((bound[0].name, bound[0].abi), (other.name, other.abi))
    stable = [each for each in found if each.abi == "abi3"]
    narrowest = (bound or stable or found)[0]
    text = f"{narrowest.python}-{narrowest.abi}-{platform.tag}"
    return Tag(text=text, because=narrowest.name)


def _mixed(one: tuple[str, str], other: tuple[str, str]) -> ProblemsError:
    """Return the error of two members, each with what it is for."""
    (first, for_first), (second, for_second) = one, other
    message = (
        f"'{first}' is for {for_first} and '{second}' for {for_second}, and no wheel for both; "
        "leave one out and build a wheel for each, or set the tag yourself: 'py3-none-any' if the "
        "handler takes the one that it can load"
    )
    return ProblemsError([Problem(PYPROJECT, "tool.mar.wheel.tag", message)])


def _find_code(spec: MarSpec, plan: Plan) -> Iterator[Code]:
    tarballs = _ready_made(spec)
    weights = tuple(file.target for file in spec.weights)
    told = False
    for member in [*plan.sealed_members(), *_packed(spec)]:
        for code in _look_at(member, is_tarball=member.name in tarballs):
            told = told or member.name in weights
            yield code
    if plan.runtime in COMPILED_RUNTIMES and not told:
        yield Code(name=next(iter(weights), plan.name), platform=this_platform())


def _packed(spec: MarSpec) -> Iterator[Member]:
    """Yield what is in the tarball that this build packs."""
    for entry in spec.tarball_entries:
        yield Member(f"{spec.tarball}:{entry.name}", entry.source)


def _ready_made(spec: MarSpec) -> set[str]:
    """Return the names of the tarballs that the author brought."""
    system = spec.config.get("system")
    value = system.get("extraFiles") if isinstance(system, dict) else None
    names = value if isinstance(value, list) else [value]
    return {name for name in names if isinstance(name, str) and name != spec.tarball}


def _look_at(member: Member, *, is_tarball: bool) -> Iterator[Code]:
    with _open(member) as file:
        magic = file.read(4)
        file.seek(0)
        if magic == ENGINE_MAGIC:
            yield Code(name=member.name, platform=this_platform())
            return
        platform = read_platform(file)
        if platform is not None:
            yield _code(member.name, platform)
        elif member.name.lower().endswith(TORCH_FILES) and magic[:2] == b"PK":
            file.seek(0)
            yield from _look_into_zip(member.name, file)
    if is_tarball and isinstance(member.source, Path):
        yield from _look_into_tarball(member.name, member.source)


def _look_into_zip(name: str, file: BinaryIO) -> Iterator[Code]:
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                if LIBRARY.search(info.filename):
                    with archive.open(info) as inner:
                        platform = read_platform(inner)
                    if platform is not None:
                        yield _code(f"{name}:{info.filename}", platform)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError):
        return  # torch will say so better than we can


def _look_into_tarball(name: str, path: Path) -> Iterator[Code]:
    try:
        with closing(open_extra_files(path)) as members:
            for inner in filter(LIBRARY.search, members.names()):
                with members.open(inner) as opened:
                    platform = read_platform(io.BytesIO(opened.read(1 << 20)))
                if platform is not None:
                    yield _code(f"{name}:{inner}", platform)
    except ArchiveError:
        return  # the project has been told


def _open(member: Member) -> BinaryIO:
    if isinstance(member.source, bytes):
        return io.BytesIO(member.source)
    return member.source.open("rb")


def _code(name: str, platform: Platform) -> Code:
    extension = EXTENSION.search(name)
    if extension is not None:
        version = extension[1] or extension[3]
        threads = extension[2] or extension[4] or ""
        return Code(
            name=name, platform=platform, python=f"cp{version}", abi=f"cp{version}{threads}"
        )
    if name.endswith(STABLE_ABI):
        return Code(name=name, platform=platform, python=OLDEST_PYTHON, abi="abi3")
    return Code(name=name, platform=platform)


def this_platform() -> Platform:
    """Return the platform of the Python that builds."""
    system, _, rest = sysconfig.get_platform().partition("-")
    if system == "macosx":
        release, _, machine = rest.partition("-")
        major, _, minor = release.partition(".")
        both = {"x86_64", "arm64"} if machine == "universal2" else {machine}
        return Platform(
            system=system, machines=frozenset(both), release=(int(major), int(minor or 0))
        )
    if system.startswith("win"):
        return Platform(system="_".join(filter(None, (system, rest))).replace("-", "_"))
    return Platform(system=system, machines=frozenset({rest.replace("-", "_")}))
