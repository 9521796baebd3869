"""The rules of the house, for as far as a machine can check them.

`docs/explanation/architecture.md` says what the rooms are for; this says who may know whom.
"""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from packaging.requirements import Requirement

import hatch_mar
from hatch_mar.cli import SUBCOMMANDS

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hatch_mar"
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py"))

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "archive": {"errors", "weights"},
    "weights": {"errors", "archive"},
    "project": {"errors", "archive", "weights"},
    "plugin": {"errors", "archive", "weights", "project"},
    "model": {"errors", "archive", "weights", "ts"},
    "ts": {"errors", "archive", "weights", "model"},
    "serve": {"errors", "archive", "weights", "model"},
    "api": {"errors", "serve"},
    "cli": {"errors", "archive", "weights", "project", "plugin", "model", "serve", "api"},
}
"""Which rooms a room may import: DESIGN's table."""

KNOWN_ONLY_TO: dict[str, set[str]] = {
    "torch": {"model", "ts"},
    "numpy": {"model", "ts"},
    "onnx": {"model"},
    "onnxruntime": {"model"},
    "safetensors": {"model"},
    "PIL": {"model", "ts"},
    "hatchling": {"plugin"},
    "pydantic": {"project"},
    "yaml": {"archive", "project", "model", "serve"},
    "fsspec": {"weights"},
    "urllib3": {"weights"},
    "filelock": {"weights", "serve", "model"},
    "s3fs": {"weights"},
    "gcsfs": {"weights"},
    "adlfs": {"weights"},
    "huggingface_hub": {"weights"},
    "pynvml": {"serve"},
    "uvicorn": {"api"},
    "starlette": {"api"},
    "httptools": {"api"},
    "python_multipart": {"api"},
    "click": {"cli"},
    "isal": {"archive"},
    "cryptography": {"cli"},
    "javaproperties": {"cli"},
    "grpc": {"api"},
}
"""Which rooms know a library."""

FORBIDDEN_NAMES = re.compile(r"(^|_)(utils?|helpers?|common|managers?|misc)(_|$)")
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 60
FRONT_DOORS = {"hatch_mar/__init__.py", "hatch_mar/__main__.py", "hatch_mar/archiver.py"}
TRAVELLER = "hatch_mar/model/factory.py"
"""The one module that may be longer: archives carry it, so it has to be a single file."""


class Import(NamedTuple):
    """One import statement's target."""

    name: str
    """Absolute dotted name: `hatch_mar.archive.plan`, `torch`."""
    line: int
    top_level: bool
    """Whether importing the module runs it."""


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"))


def room_of(module: str) -> str:
    """Return `archive` for `hatch_mar/archive/plan.py`, `errors` for `hatch_mar/errors.py`."""
    parts = Path(module).with_suffix("").parts
    return parts[1] if len(parts) > 1 else parts[0]


def imports_of(module: str) -> Iterator[Import]:
    yield from _imports_in(tree_of(module), top_level=True)


def _imports_in(node: ast.AST, *, top_level: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(alias.name, child.lineno, top_level)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: imports are absolute"
            yield Import(child.module or "", child.lineno, top_level)
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from _imports_in(child, top_level=False)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports_in(child, top_level=top_level and not inside)


def _is_type_checking(test: ast.expr) -> bool:
    return isinstance(test, ast.Name) and test.id == "TYPE_CHECKING"


def in_rooms(module: str) -> bool:
    """Tell whether the table says anything about `module`: the front doors open every room."""
    return module not in FRONT_DOORS


def in_the_worker(module: str) -> bool:
    """Tell whether `module` of the serving room runs in worker processes alone."""
    return Path(module).parent.name == "worker"


def functions_of(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imports_in(*rooms: str) -> Iterator[tuple[str, Import]]:
    """Yield `(module, import)` for every import of the rooms, of all rooms if none is named."""
    for module in MODULES:
        if in_rooms(module) and (not rooms or room_of(module) in rooms):
            for found in imports_of(module):
                yield module, found


def said(module: str, found: Import) -> str:
    return f"{module}:{found.line}: {found.name}"


def test_a_room_imports_only_the_rooms_it_may() -> None:
    strangers = [
        said(module, found)
        for module, found in imports_in()
        if found.name.startswith("hatch_mar.")
        and found.name.split(".")[1] not in {room_of(module), *MAY_IMPORT[room_of(module)]}
    ]
    assert strangers == []


def test_a_library_is_known_only_to_its_rooms() -> None:
    strangers = [
        said(module, found)
        for module, found in imports_in()
        if room_of(module) not in KNOWN_ONLY_TO.get(found.name.split(".")[0], {room_of(module)})
    ]
    assert strangers == []


def test_the_serving_room_reaches_into_model_only_in_the_worker() -> None:
    strangers = [
        said(module, found)
        for module, found in imports_in("serve")
        if found.name.startswith("hatch_mar.model")
        and found.name != "hatch_mar.model.protocol"
        and not in_the_worker(module)
    ]
    assert strangers == []


def loaded_after(*modules: str) -> set[str]:
    """Return the modules that a fresh interpreter has after importing `modules`."""
    code = "import sys, importlib\n"
    code += "".join(f"importlib.import_module({name!r})\n" for name in modules)
    code += "print(*sys.modules)"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=ROOT)
    return set(printed.split())


def dotted(module: str) -> str:
    """Return `hatch_mar.archive` for `hatch_mar/archive/__init__.py`."""
    return ".".join(Path(module).with_suffix("").parts).removesuffix(".__init__")


def test_the_plugin_hooks_load_nothing_heavy() -> None:
    """Every `hatch` command on a machine that has hatch-mar imports them."""
    heavy = {"torch", "onnx", "numpy", "yaml", "pydantic", "asyncio", "click"}
    assert not loaded_after("hatch_mar.plugin.hooks") & heavy


def test_the_package_itself_loads_nothing_heavy() -> None:
    heavy = {"torch", "onnx", "numpy", "yaml", "pydantic", "asyncio", "hatchling", "click"}
    assert not loaded_after("hatch_mar") & heavy


def test_a_command_imports_a_room_only_when_it_runs() -> None:
    """So `hatch-mar --help`, and a mistyped option, cost nothing."""
    modules = [name.replace("-", "_") for name in SUBCOMMANDS]
    loaded = loaded_after(*(f"hatch_mar.cli.{module}" for module in modules))
    rooms = {f"hatch_mar.{room}" for room in MAY_IMPORT} - {"hatch_mar.cli", "hatch_mar.errors"}
    heavy = {"torch", "onnx", "numpy", "yaml", "pydantic", "asyncio", "hatchling", "uvicorn"}
    assert not loaded & (rooms | heavy)


def test_the_door_loads_no_model_library_and_no_build_tool() -> None:
    """Whatever the serving process may import, short of the worker."""
    door = [
        dotted(name)
        for name in MODULES
        if room_of(name) in {"serve", "api", "archive", "weights"} and not in_the_worker(name)
    ]
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "pydantic", "hatchling"}
    assert not loaded_after(*door) & heavy


def test_a_module_fits_in_one_reading() -> None:
    lines = {name: (ROOT / name).read_text(encoding="utf-8").count("\n") for name in MODULES}
    assert [name for name, count in lines.items() if count > MAX_MODULE_LINES] == [TRAVELLER]


def test_a_function_fits_on_a_page() -> None:
    long = [
        f"{module}:{function.lineno}: {function.name}: {length} lines"
        for module in MODULES
        for function in functions_of(module)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > MAX_FUNCTION_LINES
    ]
    assert long == []


def test_a_module_is_named_after_a_thing() -> None:
    ours = [module for module in MODULES if room_of(module) != "ts"]  # there, TorchServe chose
    names = {part for module in ours for part in Path(module).with_suffix("").parts}
    assert [name for name in names if FORBIDDEN_NAMES.search(name)] == []


def test_every_public_thing_is_documented() -> None:
    """A method may leave it to the one that it implements, if that is in the package."""
    missing: list[str] = []
    promised: dict[str, bool] = defaultdict(bool)
    for module in MODULES:
        for owner, node in _public_things(module):
            documented = ast.get_docstring(node) is not None
            name = getattr(node, "name", "")
            if owner:
                promised[name] |= documented
            if not documented:
                missing.append(f"{module}: {owner}{name}")
    assert [line for line in missing if not promised[line.rpartition(".")[2]]] == []


def _public_things(
    module: str,
) -> Iterator[tuple[str, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]]:
    yield "", tree_of(module)
    for node in tree_of(module).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            yield "", node
            for inner in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(
                    inner, ast.FunctionDef | ast.AsyncFunctionDef
                ) and not inner.name.startswith("_"):
                    yield f"{node.name}.", inner


def test_the_base_stays_at_four_packages() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = sorted(Requirement(line).name for line in project["dependencies"])
    assert names == ["click", "hatchling", "pydantic", "pyyaml"]


def test_the_base_pulls_no_model_library_and_no_server() -> None:
    """`pip install hatch-mar` is part of every isolated build."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pulled = _closure(project["dependencies"])
    heavy = {"torch", "onnx", "onnxruntime", "numpy", "uvicorn", "starlette", "httptools", "fsspec"}
    assert "pydantic-core" in pulled, "the closure was followed"
    assert not pulled & heavy


def _closure(requirements: list[str]) -> set[str]:
    """Return the normalised names of all that `requirements` bring along on this machine."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in requirements]
    while waiting:
        requirement = waiting.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or not _applies(requirement):
            continue
        found.add(name)
        waiting += map(Requirement, importlib.metadata.requires(name) or ())
    return found


def _applies(requirement: Requirement) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def test_the_wheel_is_typed_licensed_and_of_the_version_it_says(wheelhouse: Path) -> None:
    (path,) = wheelhouse.glob("hatch_mar-*.whl")
    with zipfile.ZipFile(path) as wheel:
        names = wheel.namelist()
    assert "hatch_mar/py.typed" in names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    assert path.name.split("-")[1] == hatch_mar.__version__
    shipped = {name for name in names if name.endswith(".py")}
    assert shipped == set(MODULES), "no room is git-ignored, and no test is shipped"
