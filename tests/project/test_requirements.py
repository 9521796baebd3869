"""The archive's requirements.txt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.project.scratch import Scratch

URL = "foo @ https://example.org/foo-1-py3-none-any.whl"


def with_dependencies(scratch: Scratch, dependencies: str, mar: str = "") -> None:
    project = f'[project]\nname = "digits"\nversion = "1"\ndependencies = [{dependencies}]\n'
    scratch.configure(mar, project=project)


def test_the_projects_own_without_what_every_server_has(scratch: Scratch) -> None:
    with_dependencies(
        scratch, '"hatch_mar[serve]", "torch>=2", "TorchVision", "numpy>=1.26 ; os_name == \'nt\'"'
    )
    assert scratch.content("requirements.txt") == b"numpy>=1.26 ; os_name == 'nt'\n"
    assert scratch.plan().manifest.requirements_file == "requirements.txt"


def test_no_requirements_no_file(scratch: Scratch) -> None:
    with_dependencies(scratch, '"torch"')
    assert scratch.plan().manifest.requirements_file is None
    assert "requirements.txt" not in scratch.members()


def test_a_file_travels_byte_for_byte_under_its_name(scratch: Scratch) -> None:
    text = (
        f"# why\n--extra-index-url https://example.org/simple\n{URL}#sha256=00\nnumpy==2.0 \\\n  "
    )
    text += "--hash=sha256:00\ntorch --hash=sha256:00\n"
    scratch.write({"conf/serving.txt": text})
    scratch.configure('requirements = "conf/serving.txt"')
    assert scratch.content("serving.txt").decode() == text
    assert scratch.plan().manifest.requirements_file == "serving.txt"


def test_a_list(scratch: Scratch) -> None:
    scratch.configure(f'requirements = ["scipy", "{URL}"]')
    assert scratch.content("requirements.txt").decode() == f"scipy\n{URL}\n"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-r other.txt", "names another file"),
        ("-rother.txt", "names another file"),
        ("--requirement=other.txt", "names another file"),
        ("-e .", "names another file"),
        ("-c limits.txt", "names another file"),
        ("--find-links wheels", "names a folder of this machine"),
        ("./wheels/foo.whl", "is a path of this machine"),
        ("foo @ file:///wheels/foo.whl", "is a file of this machine"),
        ("foo @ {root:uri}/foo", "means something only on this machine"),
        ("https://example.org/foo.whl", "has no name; write 'name @ URL'"),
        ("--no-sutch-option", "is no option that pip takes"),
        ("--extra-index-urls https://h/", "is no option that pip takes"),
        ("numpy >> 3", "is no requirement that others could install"),
    ],
)
def test_a_line_that_cannot_travel_is_an_error_everywhere(
    scratch: Scratch, line: str, message: str
) -> None:
    scratch.write({"r.txt": f"numpy\n\n{line}  # why\n"})
    scratch.configure('requirements = "r.txt"')
    assert scratch.problem().startswith(f"r.txt: line 3: '{line}' {message}")
    scratch.configure(f'requirements = ["numpy", "{line}"]')
    assert scratch.problem().startswith(
        f"pyproject.toml: tool.mar.requirements[1]: '{line}' {message}"
    )
    with_dependencies(scratch, f'"numpy", "{line}"')
    assert scratch.problem().startswith(f"pyproject.toml: project.dependencies[1]: '{line}' ")


def test_a_file_that_is_not_there(scratch: Scratch) -> None:
    scratch.configure('requirements = "requirement.txt"')
    scratch.write({"requirements.txt": "numpy\n"})
    assert scratch.problem().endswith("did you mean 'requirements.txt'?")


def test_a_file_that_is_no_text(scratch: Scratch) -> None:
    scratch.write({"r.txt": b"\xff\xfe"})
    scratch.configure('requirements = "r.txt"')
    assert scratch.problem().startswith("r.txt: is not UTF-8")


def test_dynamic_dependencies_are_for_the_build_to_tell(scratch: Scratch) -> None:
    project = '[project]\nname = "digits"\nversion = "1"\ndynamic = ["dependencies"]\n'
    scratch.configure("", project=project)
    assert "the project's dependencies are dynamic" in scratch.problem()
    entries = {entry.name: entry.source for entry in scratch.spec(dependencies=["x"]).entries}
    assert entries["requirements.txt"] == b"x\n"


def test_dependencies_that_are_no_array(scratch: Scratch) -> None:
    project = '[project]\nname = "digits"\nversion = "1"\ndependencies = "numpy"\n'
    scratch.configure("", project=project)
    assert scratch.problem() == (
        "pyproject.toml: project.dependencies: must be an array of strings"
    )


def test_a_byte_order_mark_is_passed_over_as_pip_does(scratch: Scratch) -> None:
    scratch.write({"needs.txt": b"\xef\xbb\xbfnumpy\n"})
    scratch.configure('requirements = "needs.txt"')
    assert scratch.spec().requirements_file == "needs.txt"


def test_one_hash_asks_for_all(scratch: Scratch) -> None:
    scratch.configure('requirements = ["scipy==1 --hash=sha256:00", "numpy==2"]')
    assert "'numpy==2' has no `--hash`, though another line has one" in scratch.problem()


def test_an_option_among_the_dependencies_of_the_project(scratch: Scratch) -> None:
    project = '[project]\nname = "d"\nversion = "1"\ndependencies = ["--pre"]\n'
    scratch.configure("", project=project)
    assert "project.dependencies[0]: '--pre' is no requirement" in scratch.problem()


def test_a_last_line_that_was_to_go_on_is_read_too(scratch: Scratch) -> None:
    scratch.write({"r.txt": "scipy\n-e . \\"})
    scratch.configure('requirements = "r.txt"')
    assert scratch.problem().startswith("r.txt: line 2: '-e .' names another file")
