"""Which layer wins, and how a mistake in each of them is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hatch_mar.project.document import find_hook, parse, read_pyproject, render

if TYPE_CHECKING:
    from tests.project.scratch import Scratch


def test_the_hook_table_wins_over_the_tool_table(scratch: Scratch) -> None:
    scratch.configure('name = "from-tool"')
    scratch.hook = {"name": "from-hook"}
    assert scratch.spec().name == "from-hook"


def test_the_environment_wins_over_the_hook_table(scratch: Scratch) -> None:
    scratch.hook = {"name": "from-hook"}
    scratch.environ = {"HATCH_MAR_NAME": "from-environment"}
    assert scratch.spec().name == "from-environment"


def test_layers_merge_sub_tables_key_by_key(scratch: Scratch) -> None:
    scratch.configure('archive.filename = "a.mar"\narchive.directory = "archives"')
    scratch.hook = {"archive": {"filename": "b.mar"}}
    scratch.environ = {"HATCH_MAR_ARCHIVE_COMPRESSION": "deflated"}
    archive = scratch.spec().archive
    assert (archive.filename, str(archive.directory)) == ("b.mar", "archives")
    assert archive.compression == "deflated"


@pytest.mark.parametrize(
    "key",
    [
        "dependencies",
        "require-runtime-dependencies",
        "require-runtime-features",
        "enable-by-default",
        "path",
    ],
)
def test_hatchlings_own_hook_keys_are_passed_over(scratch: Scratch, key: str) -> None:
    scratch.hook = {key: "anything"}
    assert scratch.spec().name == "digits"


def test_the_hook_table_is_not_changed(scratch: Scratch) -> None:
    scratch.write({"w.pt": b"1", "v.pt": b"2"})
    scratch.hook = {"weights": [{"source": "w.pt"}]}
    scratch.environ = {"HATCH_MAR_WEIGHTS_0_SOURCE": "v.pt"}
    assert scratch.spec().weights[0].target == "v.pt"
    assert scratch.hook == {"weights": [{"source": "w.pt"}]}


def test_a_variable_reaches_into_arrays_of_tables(scratch: Scratch) -> None:
    scratch.write({"w.pt": b"1234"})
    scratch.environ = {"HATCH_MAR_WEIGHTS_0_SOURCE": "w.pt", "HATCH_MAR_WEIGHTS_0_SIZE": "4"}
    assert scratch.spec().weights[0].path == scratch.root / "w.pt"


def test_a_variable_may_hold_an_array(scratch: Scratch) -> None:
    scratch.environ = {"HATCH_MAR_REQUIREMENTS": '["scipy"]'}
    assert scratch.content("requirements.txt") == b"scipy\n"


def test_a_version_from_the_environment_is_text(scratch: Scratch) -> None:
    scratch.environ = {"HATCH_MAR_VERSION": "1.10"}
    assert scratch.spec().version == "1.10"


def test_a_number_and_a_boolean_from_the_environment(scratch: Scratch) -> None:
    scratch.environ = {
        "HATCH_MAR_SYSTEM_MAX_GPU_MEMORY": "500",
        "HATCH_MAR_ARCHIVE_ENABLED": "false",
        "HATCH_MAR_SERVE_BATCH_SIZE": "8",
    }
    spec = scratch.spec()
    assert spec.config == {"batchSize": 8, "system": {"maxGPUMemory": 500}}
    assert not spec.archive.enabled


def test_variables_of_the_runner_are_none_of_ours(scratch: Scratch) -> None:
    scratch.environ = {"HATCH_MAR_SERVE_PORT": "8080", "HATCH_MAR_DIR": "x", "HATCH_MAR_DEBUG": "1"}
    assert scratch.spec().config == {}


def test_a_mistake_in_the_environment_names_the_variable(scratch: Scratch) -> None:
    scratch.environ = {"HATCH_MAR_ARCHIVE_FORMAT": "zip"}
    assert scratch.problem() == (
        "environment: HATCH_MAR_ARCHIVE_FORMAT: 'zip' is not one of mar, tgz, dir"
    )


def test_a_mistake_in_the_hook_table_names_that_table(scratch: Scratch) -> None:
    scratch.hook = {"archive": {"formt": "mar"}}
    assert scratch.problem() == (
        "pyproject.toml: tool.hatch.build.hooks.mar.archive.formt: unknown key; "
        "did you mean 'format'?"
    )


@pytest.mark.parametrize(
    ("weights", "key"),
    [
        ('"w.pt"', "tool.mar.weights"),
        ('{ source = "w.pt" }', "tool.mar.weights.source"),
        ('[{ source = "w.pt" }]', "tool.mar.weights[0].source"),
    ],
)
def test_a_key_path_is_the_one_the_author_wrote(scratch: Scratch, weights: str, key: str) -> None:
    scratch.configure(f"weights = {weights}")
    assert scratch.problem() == f"pyproject.toml: {key}: 'w.pt' does not exist"


def test_a_missing_pyproject_is_the_only_problem(scratch: Scratch) -> None:
    (scratch.root / "pyproject.toml").unlink()
    assert scratch.problem().startswith("pyproject.toml: not found in ")


def test_broken_toml_is_the_only_problem(scratch: Scratch) -> None:
    scratch.write({"pyproject.toml": "[project\n"})
    assert "line 1" in scratch.problem()


@pytest.mark.parametrize("text", ["tool = 3", "tool.mar = 3", "project = 3"])
def test_a_table_that_is_none_is_a_problem_and_no_crash(scratch: Scratch, text: str) -> None:
    scratch.write({"pyproject.toml": f"{text}\n"})
    assert scratch.problems()


def test_key_paths_render_and_parse() -> None:
    path = ("tool", "weights", 0, "source")
    assert render(path) == "tool.weights[0].source"
    assert parse(render(path)) == path


HOOK = "[tool.hatch.build.hooks.mar]\nname = 'all'\n"
WHEEL_HOOK = "[tool.hatch.build.targets.wheel.hooks.mar]\nname = 'wheel'\n"


@pytest.mark.parametrize(
    ("pyproject", "hatch", "name"),
    [
        (HOOK, "", "all"),
        (HOOK + WHEEL_HOOK, "", "wheel"),
        (HOOK, "[build.hooks.mar]\nname = 'own'\n", "own"),
        (HOOK, "[build]\n", None),
        ("", "", None),
    ],
)
def test_the_hook_table_is_found_where_hatchling_finds_it(
    scratch: Scratch, pyproject: str, hatch: str, name: str | None
) -> None:
    scratch.write({"pyproject.toml": pyproject, "hatch.toml": hatch})
    table, _ = find_hook(scratch.root, read_pyproject(scratch.root, []), [])
    assert (table or {}).get("name") == name


@pytest.mark.parametrize(
    ("hatch", "key"),
    [
        ("", "pyproject.toml: tool.hatch.build.hooks.mar"),
        ("[build.hooks.mar]\nformt = 1\n", "hatch.toml: build.hooks.mar"),
        (
            "[build.targets.wheel.hooks.mar]\nformt = 1\n",
            "hatch.toml: build.targets.wheel.hooks.mar",
        ),
    ],
)
def test_a_mistake_names_the_file_that_the_hook_table_is_in(
    scratch: Scratch, hatch: str, key: str
) -> None:
    scratch.write({"hatch.toml": hatch})
    scratch.hook = {"formt": 1}
    assert scratch.problem().startswith(f"{key}.formt: unknown key")


def test_broken_toml_of_hatchs_own(scratch: Scratch) -> None:
    scratch.write({"hatch.toml": "[build\n"})
    assert scratch.problem().startswith("hatch.toml: cannot be read: ")


@pytest.mark.parametrize(
    "variable", ["HATCH_MAR_WEIGHTS_SOURCE", "HATCH_MAR_EXAMPLES_1_INPUT", "HATCH_MAR_WEIGHTS_0"]
)
def test_a_variable_that_names_no_entry_is_not_passed_over(scratch: Scratch, variable: str) -> None:
    scratch.environ = {variable: "x"}
    assert scratch.problem().startswith(f"environment: {variable}: names no entry")


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"HATCH_MAR_NAME": "\udcff"}, "is not valid UTF-8"),
        ({"HATCH_MAR_SYSTEM_MAX_GPU_MEMORY": "much"}, "must be a whole number, not 'much'"),
        ({"HATCH_MAR_SERVE_BATCH_SIZE": "eight"}, "must be an integer, not 'eight'"),
        ({"HATCH_MAR_PACKAGES": '["absent"]'}, "there is no package 'absent'"),
        ({"HATCH_MAR_WEIGHTS": '[{ source = "gone.pt" }]'}, "'gone.pt' does not exist"),
        ({"HATCH_MAR_WHEEL_EMBED_LIMIT": "lots"}, "'lots' is not a size"),
        ({"HATCH_MAR_RUNTIME": "9" * 5000}, "is not one of auto, "),
    ],
)
def test_a_bad_value_names_its_variable(
    scratch: Scratch, environ: dict[str, str], message: str
) -> None:
    scratch.environ = environ
    problem = scratch.problem()
    assert problem.startswith(f"environment: {next(iter(environ))}")
    assert message in problem


@pytest.mark.parametrize("text", [f"x = {'9' * 5000}", f"x = {'[' * 5000}"])
def test_toml_without_end_is_a_problem(scratch: Scratch, text: str) -> None:
    scratch.write({"pyproject.toml": text})
    assert scratch.problem().startswith("pyproject.toml: ")
