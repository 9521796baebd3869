"""The tag of a wheel is that of the machine code in it."""

from __future__ import annotations

import io
import struct
import sysconfig
import zipfile
from typing import TYPE_CHECKING

import pytest

from hatch_mar.errors import ProblemsError
from hatch_mar.plugin.tag import choose_tag, this_platform
from hatch_mar.project.planning import make_plan
from hatch_mar.project.read import read_spec
from tests.support.builds import only, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.plugin.conftest import Build
    from tests.support.builds import Environment, ProjectMaker

HERE = sysconfig.get_platform().replace("-", "_").replace(".", "_")
INHERITED = (
    "from ts.torch_handler.base_handler import BaseHandler\n\n\nclass H(BaseHandler):\n    pass\n"
)
EXTRA = 'handler = "handler.py:handle"\nextra-files = ["lib/*"]'


def elf(machine: int) -> bytes:
    ident = struct.pack("4s4B8x", b"\x7fELF", 2, 1, 1, 0)
    return ident + struct.pack("<HHI", 3, machine, 1) + bytes(40)


X86_64, AARCH64 = elf(62), elf(183)
WINDOWS = b"MZ".ljust(0x3C, b"\0") + struct.pack("<I4sH", 0x40, b"PE\0\0", 0x8664)
UNIVERSAL = struct.pack(
    ">4sI5I5I", b"\xca\xfe\xba\xbe", 2, 0x01000007, 0, 48, 32, 0, 0x0100000C, 0, 80, 32, 0
)
UNIVERSAL += struct.pack("<4sI24x", b"\xcf\xfa\xed\xfe", 0x01000007)
UNIVERSAL += struct.pack("<4sI24x", b"\xcf\xfa\xed\xfe", 0x0100000C)
ARM_MAC = struct.pack("<4sI24x", b"\xcf\xfa\xed\xfe", 0x0100000C)


def zipped(**files: bytes) -> bytes:
    """Return a zip file, `__` in a name being a slash and `_` a dot."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), content)
    return data.getvalue()


@pytest.fixture
def tag_of(make_project: ProjectMaker) -> Callable[..., str]:
    """Write a project with `files`, and return the tag of its wheel."""

    def tag_of(mar: str, files: dict[str, str | bytes | None]) -> str:
        spec = read_spec(make_project(mar=mar, files=files))
        return choose_tag(spec, make_plan(spec)).text

    return tag_of


@pytest.mark.parametrize(
    ("files", "tag"),
    [
        ({"lib/words.txt": b"one"}, "py3-none-any"),
        ({"lib/op.so": X86_64}, "py3-none-linux_x86_64"),
        ({"lib/op.so": AARCH64}, "py3-none-linux_aarch64"),
        ({"lib/tool": X86_64}, "py3-none-linux_x86_64"),
        ({"lib/op.dll": WINDOWS}, "py3-none-win_amd64"),
        ({"lib/op.dylib": UNIVERSAL}, "py3-none-macosx_10_9_universal2"),
        ({"lib/a.dylib": UNIVERSAL, "lib/b": ARM_MAC}, "py3-none-macosx_11_0_arm64"),
        ({"lib/op.so": b"no library"}, "py3-none-any"),
        ({"lib/op.cpython-311-x86_64-linux-gnu.so": X86_64}, "cp311-cp311-linux_x86_64"),
        ({"lib/op.cpython-313t-x86_64-linux-gnu.so": X86_64}, "cp313-cp313t-linux_x86_64"),
        ({"lib/op.cp312-win_amd64.pyd": WINDOWS}, "cp312-cp312-win_amd64"),
        ({"lib/op.abi3.so": X86_64, "lib/other.so": X86_64}, "cp311-abi3-linux_x86_64"),
        (
            {"lib/a.abi3.so": X86_64, "lib/b.cpython-312-x86_64-linux-gnu.so": X86_64},
            "cp312-cp312-linux_x86_64",
        ),
    ],
)
def test_files_of_the_model_decide(
    tag_of: Callable[..., str], files: dict[str, bytes], tag: str
) -> None:
    assert tag_of(EXTRA, files) == tag


def test_a_library_in_the_tarball_counts(tag_of: Callable[..., str]) -> None:
    assert tag_of(f'{EXTRA}\nextra-layout = "tarball"', {"lib/op.so": AARCH64}) == (
        "py3-none-linux_aarch64"
    )


def test_a_library_in_a_ready_made_tarball_counts(tag_of: Callable[..., str]) -> None:
    mar = 'handler = "handler.py:handle"\nsystem.extra-files = "lib.zip"'
    assert tag_of(mar, {"lib.zip": zipped(a_so=AARCH64)}) == "py3-none-linux_aarch64"


@pytest.mark.parametrize(
    ("inside", "tag"),
    [
        ({"m__data__aotinductor__model__x_wrapper_so": AARCH64}, "py3-none-linux_aarch64"),
        ({"m__models__model_json": b"{}"}, "py3-none-any"),
    ],
)
def test_a_pt2_is_looked_into(
    tag_of: Callable[..., str], inside: dict[str, bytes], tag: str
) -> None:
    files = {"m.pt2": zipped(**inside), "handler.py": INHERITED}
    assert tag_of('weights = "m.pt2"', files) == tag


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"ptrt" + bytes(64), id="as TensorRT writes it"),
        pytest.param(b"an engine of another release", id="by its name alone"),
    ],
)
def test_a_tensorrt_engine_is_for_the_machine_that_made_it(
    tag_of: Callable[..., str], content: bytes
) -> None:
    files = {"m.engine": content, "handler.py": INHERITED}
    assert tag_of('weights = "m.engine"', files) == f"py3-none-{HERE}"


def test_an_engine_is_known_wherever_it_lies(tag_of: Callable[..., str]) -> None:
    assert tag_of(EXTRA, {"lib/m.bin": b"ptrt" + bytes(64)}) == f"py3-none-{HERE}"


def test_what_was_compiled_and_lies_elsewhere_is_for_this_machine(
    tag_of: Callable[..., str],
) -> None:
    weights = f'weights = {{ source = "https://models.example/m.engine", sha256 = "{"0" * 64}" }}'
    assert tag_of(weights, {"handler.py": INHERITED}) == f"py3-none-{HERE}"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"lib/a.so": X86_64, "lib/b.so": AARCH64},
            "'lib/a.so' is for linux_x86_64 and 'lib/b.so' for linux_aarch64",
        ),
        (
            {"lib/a.so": X86_64, "lib/b.dll": WINDOWS},
            "'lib/a.so' is for linux_x86_64 and 'lib/b.dll' for win_amd64",
        ),
        (
            {
                "lib/a.cpython-311-x86_64-linux-gnu.so": X86_64,
                "lib/b.cpython-312-x86_64-linux-gnu.so": X86_64,
            },
            "is for cp311 and 'lib/b.cpython-312-x86_64-linux-gnu.so' for cp312",
        ),
    ],
)
def test_a_mixture_is_refused(
    tag_of: Callable[..., str], files: dict[str, bytes], said: str
) -> None:
    with pytest.raises(ProblemsError) as caught:
        tag_of(EXTRA, files)
    assert said in str(caught.value)


def test_this_platform_is_the_one_that_pip_knows() -> None:
    assert this_platform().tag == HERE


def test_the_build_says_why(build: Build, make_project: ProjectMaker) -> None:
    said = build(make_project(mar=EXTRA, files={"lib/op.so": AARCH64}))
    assert "hatch-mar: tagged py3-none-linux_aarch64, for 'lib/op.so' is machine code" in said


def test_a_wheel_for_a_machine_is_no_pure_one(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(mar=EXTRA, files={"lib/op.so": AARCH64})
    build(project)
    wheel = only(project / "dist", "*.whl")
    assert wheel.name == "demo-1.0-py3-none-linux_aarch64.whl"
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read("demo-1.0.dist-info/WHEEL").decode()
    assert "Root-Is-Purelib: false\nTag: py3-none-linux_aarch64\n" in text


def test_a_mixture_is_refused_with_everything_else(
    refused: Build, make_project: ProjectMaker
) -> None:
    project = make_project(mar=EXTRA, files={"lib/a.so": X86_64, "lib/b.so": AARCH64})
    pyproject = project / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace('"hatch-mar[serve]"', ""))
    said = refused(project)
    assert "hatch-mar: 2 problems" in said
    assert "pyproject.toml: tool.mar.wheel.tag: 'lib/a.so' is for linux_x86_64" in said


def test_the_author_may_vouch_for_a_mixture(build: Build, make_project: ProjectMaker) -> None:
    mar = f'{EXTRA}\nwheel.tag = "py3-none-any"'
    project = make_project(mar=mar, files={"lib/a.so": X86_64, "lib/b.so": AARCH64})
    build(project)
    assert only(project / "dist", "*.whl").name == "demo-1.0-py3-none-any.whl"


def test_an_editable_wheel_is_for_this_tree_whatever_is_in_it(
    build: Build, make_project: ProjectMaker
) -> None:
    project = make_project(mar=EXTRA, files={"lib/a.so": X86_64, "lib/b.so": AARCH64})
    build(project, "wheel:editable")
    assert only(project / "dist", "*.whl").name.startswith("demo-1.0-py3-none-any")


TAGGING_HOOK = """
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Hook(BuildHookInterface):
    def initialize(self, version, build_data):
        build_data["tag"], build_data["pure_python"] = "cp311-cp311-manylinux_2_28_x86_64", False
"""


def test_another_hook_that_tags_knows_better(build: Build, make_project: ProjectMaker) -> None:
    project = make_project(mar=EXTRA, files={"lib/op.so": X86_64, "hatch_build.py": TAGGING_HOOK})
    pyproject = project / "pyproject.toml"
    mine = "[tool.hatch.build.hooks.mar]"
    text = pyproject.read_text().replace(mine, f"[tool.hatch.build.hooks.custom]\n{mine}")
    pyproject.write_text(text)
    build(project)
    name = "demo-1.0-cp311-cp311-manylinux_2_28_x86_64.whl"
    assert only(project / "dist", "*.whl").name == name


COMPILE = """
import sys
import torch


class Double(torch.nn.Module):
    def forward(self, x):
        return x * 2


program = torch.export.export(Double(), (torch.zeros(3),))
torch.export.save(program, sys.argv[1])
torch._inductor.aoti_compile_and_package(program, package_path=sys.argv[2])
"""


@pytest.mark.slow  # a C++ compiler runs
def test_what_torch_exports_and_what_it_compiles(
    tag_of: Callable[..., str], serving_env: Environment, tmp_path: Path
) -> None:
    plain, compiled = tmp_path / "plain.pt2", tmp_path / "compiled.pt2"
    run(serving_env.python, "-W", "ignore", "-c", COMPILE, plain, compiled)
    for path, tag in ((plain, "py3-none-any"), (compiled, f"py3-none-{HERE}")):
        files = {"m.pt2": path.read_bytes(), "handler.py": INHERITED}
        assert tag_of('weights = "m.pt2"', files) == tag
