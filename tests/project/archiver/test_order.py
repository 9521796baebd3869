"""torch-model-archiver's options, where ours does better than the original: one test each."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.archive.write import write_archive
from hatch_mar.errors import ArchiveError, ProblemsError
from hatch_mar.project.archiver.order import ArchiverOptions, Order, read_order

if TYPE_CHECKING:
    from pathlib import Path

Write = Callable[..., None]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a handler in it; temporary files would go beside it."""
    home = tmp_path / "here"
    home.mkdir()
    (tmp_path / "temporary").mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    (home / "handler.py").write_text("def handle(data, context): ...\n")
    return home


@pytest.fixture
def write(here: Path) -> Write:
    def write(**files: str) -> None:
        """Write files: `a__b_py` is a/b.py."""
        for name, text in files.items():
            stem, _, suffix = name.replace("__", "/").rpartition("_")
            path = here / f"{stem}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    return write


def order(**options: Any) -> Order:
    given = {"model_name": "m", "version": "1.0", "handler": "handler.py", **options}
    return read_order(ArchiverOptions(**given), {})


def names(made: Order) -> list[str]:
    return [member.name for member in made.plan.members]


def problems(**options: Any) -> list[str]:
    with pytest.raises(ProblemsError) as raised:
        order(**options)
    return [str(problem) for problem in raised.value.problems]


def test_a_function_of_a_file_with_its_suffix(here: Path) -> None:
    made = order(handler="handler.py:handle")
    assert made.plan.manifest.handler == "handler.py:handle"
    assert names(made) == ["handler.py"]


def test_a_folder_may_have_py_in_its_name(write: Write) -> None:
    write(some_pyfiles__mine_py="def handle(data, context): ...")
    assert names(order(handler="some_pyfiles/mine")) == ["mine.py"]


def test_spaces_and_line_ends_around_commas(write: Write) -> None:
    write(one_txt="1", two_txt="2")
    assert names(order(extra_files=" one.txt,\n two.txt , ")) == [
        "handler.py",
        "one.txt",
        "two.txt",
    ]


def test_a_name_that_looks_like_a_pattern(here: Path) -> None:
    (here / "data[1].txt").touch()
    (here / "data1.txt").touch()
    assert names(order(extra_files="data[1].txt")) == ["data[1].txt", "handler.py"]


def test_two_files_of_one_name_are_both_named(write: Write) -> None:
    write(a__same_txt="1", b__same_txt="2")
    (problem,) = problems(extra_files="a/same.txt,b")
    assert "'same.txt' (b/same.txt) collides with 'same.txt' (a/same.txt)" in problem
    assert problem.startswith("--extra-files: ")


def test_the_same_bytes_twice_lose_nothing(write: Write) -> None:
    write(a__init_py="", b__init_py="")
    assert names(order(extra_files="a,b,handler.py")) == ["handler.py", "init.py"]


def test_folders_with_the_same_folder_in_them_are_merged(write: Write) -> None:
    write(a__sub__one_txt="1", b__sub__two_txt="2")
    assert names(order(extra_files="a,b")) == ["handler.py", "sub/one.txt", "sub/two.txt"]


def test_names_that_differ_in_case_alone_collide(here: Path) -> None:
    (here / "a.txt").write_text("1")
    (here / "A.txt").write_text("2")
    (problem,) = problems(extra_files="*.txt")
    assert "collides" in problem


def test_nobody_else_writes_the_manifest(here: Path) -> None:
    (here / "tree" / "MAR-INF").mkdir(parents=True)
    (here / "tree" / "MAR-INF" / "MANIFEST.json").write_text("{}")
    (problem,) = problems(extra_files="tree")
    assert "'MAR-INF/MANIFEST.json' is in a folder that is not yours" in problem


def test_everything_that_is_wrong_is_said_at_once(write: Write) -> None:
    write(list_yaml="- 1")
    found = problems(
        model_name="m m",
        handler="gone:there",
        model_file="gone.py",
        serialized_file=".",
        extra_files="gone.txt,handler.py,also/gone.txt",
        requirements_file="gone/too",
        config_file="list.yaml",
        export_path="nowhere",
        runtime="java",
        archive_format="rar",
        model_path="nowhere",
    )
    flags = [problem.partition(":")[0] for problem in found]
    assert flags == [
        *("--model-path", "--archive-format", "--runtime", "--model-name", "--export-path"),
        *("--handler", "--model-file", "--serialized-file", "--requirements-file"),
        *("--extra-files", "--extra-files", "--config-file"),
    ]


def test_a_name_ends_where_it_ends(here: Path) -> None:
    assert "cannot be a model's name" in problems(model_name="m\n")[0]


@pytest.mark.parametrize(
    ("source", "attribute", "complaint"),
    [
        ("def handle(", "", "line 1: "),
        ("def handle(data, context): ...", ":handel", "has no 'handel'; did you mean 'handle'?"),
        ("x = 1", "", "has no class, no function `handle`"),
        ("class A: ...\nclass B: ...", "", "name one: 'odd.py:B'"),
        ("from .x import y\nclass A: ...", "", "line 1: a relative import"),
    ],
)
def test_a_handler_that_no_server_could_call(
    write: Write, source: str, attribute: str, complaint: str
) -> None:
    write(odd_py=source)
    (problem,) = problems(handler=f"odd.py{attribute}")
    assert complaint in problem


@pytest.mark.parametrize(
    "source",
    [
        "from x import *",
        "try:\n    from .x import y\nexcept ImportError:\n    y = 1\ndef handle(d, c): ...",
        "class Only:\n    def handle(self, d, c): ...",
        "from x import handle",
        "def __getattr__(name): ...",
    ],
)
def test_a_handler_that_a_server_may_call(write: Write, source: str) -> None:
    write(odd_py=source)
    assert order(handler="odd").plan.manifest.handler == "odd"


def test_one_class_of_several(write: Write) -> None:
    write(two_py="class A: ...\nclass B:\n    def handle(self, data, context): ...")
    made = order(handler="two:B")
    assert made.plan.manifest.handler == "hatch_mar_handler.py"
    assert names(made) == ["hatch_mar_handler.py", "two.py"]


def test_the_only_class_by_its_name(write: Write) -> None:
    """TorchServe would call the class with a request."""
    write(one_py="class A:\n    def handle(self, data, context): ...")
    assert order(handler="one.py:A").plan.manifest.handler == "one.py"


def test_a_factory_brings_its_module(write: Write) -> None:
    write(made_py="from base_handler import handler_factory\nhandler = handler_factory(print)")
    made = order(handler="made")
    assert made.plan.manifest.handler == "made:handler"
    assert names(made) == ["base_handler.py", "made.py"]
    assert made.plan.runtime == "eager"


def test_ones_own_base_handler_stays(write: Write) -> None:
    write(
        lib__base_handler_py="handler_factory = dict",
        made_py="from base_handler import handler_factory\nhandle = handler_factory()",
    )
    made = order(handler="made", extra_files="lib")
    assert [member.source for member in made.plan.members if member.name == "base_handler.py"] == [
        made.path.parent / "lib" / "base_handler.py"
    ]


def test_an_import_that_stays_behind(write: Write) -> None:
    write(odd_py="import other\ndef handle(data, context): ...", other_py="")
    (warning,) = order(handler="odd").warnings
    assert "odd.py: line 1: imports 'other', but other.py stays behind" in warning
    assert order(handler="odd", extra_files="other.py").warnings == ()


def test_a_package_that_stays_behind(here: Path, write: Write) -> None:
    write(odd_py="import other\ndef handle(data, context): ...")
    for package in ("other", "lib/other"):
        (here / package).mkdir(parents=True)
        (here / package / "__init__.py").touch()
    (warning,) = order(handler="odd").warnings
    assert "name the folder that holds the package" in warning
    assert order(handler="odd", extra_files="lib").warnings == ()


def test_weights_that_git_lfs_kept(here: Path) -> None:
    (here / "w.pt").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert "git lfs pull" in problems(serialized_file="w.pt")[0]


def test_broken_yaml(write: Write) -> None:
    write(config_yaml="batchSize: [")
    assert problems(config_file="config.yaml")[0].startswith("--config-file: config.yaml: line ")


def test_what_torchserve_shrugs_at_is_a_warning(write: Write) -> None:
    write(
        config_yaml="batchsize: 2\nminWorkers: 1\nsystem: {extraFiles: code.tar}",
        needs_txt="-r other.txt",
    )
    made = order(config_file="config.yaml", requirements_file="needs.txt", extra_files="*.md")
    text = "\n".join(made.warnings)
    assert "did you mean 'batchSize'?" in text
    assert "minWorkers: does nothing without maxWorkers" in text
    assert "'code.tar' is not in the archive" in text
    assert "needs.txt: line 1: '-r other.txt' names another file" in text
    assert "--extra-files: '*.md' matches no file" in text


def test_an_empty_configuration_is_a_warning(write: Write) -> None:
    write(config_yaml="")
    assert "is empty" in order(config_file="config.yaml").warnings[0]


def test_what_base_handler_could_not_load_is_a_warning(write: Write) -> None:
    write(w_h5="")
    made = order(handler="image_classifier", serialized_file="w.h5")
    assert "BaseHandler, which cannot load 'w.h5' without --model-file" in made.warnings[0]
    assert made.plan.runtime == "custom"


@pytest.mark.parametrize(
    ("files", "runtime"),
    [
        ({"serialized_file": "w.pt"}, "torchscript"),
        ({"serialized_file": "w.pth", "model_file": "net.py"}, "eager"),
        ({"serialized_file": "w.onnx"}, "onnx"),
    ],
)
def test_the_seal_knows_the_runtime(write: Write, files: dict[str, str], runtime: str) -> None:
    write(w_pt="", w_pth="", w_onnx="", net_py="class Net: ...")
    assert order(handler="image_classifier", **files).plan.runtime == runtime


def test_links_that_lead_nowhere_are_left_out(here: Path) -> None:
    (here / "tree").mkdir()
    (here / "tree" / ".#lock").symlink_to("nowhere")
    made = order(extra_files="tree")
    assert names(made) == ["handler.py"]
    assert "is a link that leads nowhere; left out" in made.warnings[0]


def test_a_link_back_is_not_followed(here: Path) -> None:
    (here / "tree").mkdir()
    (here / "tree" / "back").symlink_to("..")
    assert names(order(extra_files="tree")) == ["handler.py"]


def test_a_name_that_no_archive_can_hold(here: Path) -> None:
    (here / "a\nb.txt").touch()
    assert "holds a control character" in problems(extra_files="*.txt")[0]


def test_a_name_of_undecodable_bytes(here: Path) -> None:
    (here / "caf\udce9.txt").touch()
    assert "is not valid UTF-8" in problems(extra_files="*.txt")[0]


def test_a_null_character(here: Path) -> None:
    assert "cannot be looked for" in problems(extra_files="a\0b")[0]


def test_a_path_that_is_too_long(here: Path) -> None:
    assert "cannot be looked for: File name too long" in problems(config_file="x" * 300)[0]


def test_a_device_is_no_file(here: Path) -> None:
    assert "a device or a pipe" in problems(serialized_file="/dev/null")[0]


def test_model_path_comes_first(write: Write) -> None:
    write(w_pt="here", models__w_pt="there", models__a_txt="", b_txt="")
    made = order(
        model_path="models", serialized_file="w.pt", extra_files="*.txt,b.txt,models/a.txt"
    )
    sources = [str(member.source) for member in made.plan.members]
    assert [source.removeprefix(str(made.path.parent)) for source in sources] == [
        *("/models/a.txt", "/b.txt", "/handler.py", "/models/w.pt")
    ]


def test_nothing_goes_through_the_temporary_directory(here: Path, tmp_path: Path) -> None:
    precious = tmp_path / "temporary" / "m" / "precious.txt"
    precious.parent.mkdir()
    precious.write_text("mine")
    made = order()
    write_archive(made.plan, made.path)
    assert precious.read_text() == "mine"
    assert list((tmp_path / "temporary").iterdir()) == [precious.parent]


def test_a_directory_in_the_temporary_directory(here: Path, tmp_path: Path) -> None:
    made = order(archive_format="no-archive", export_path=str(tmp_path / "temporary"))
    write_archive(made.plan, made.path)
    assert (tmp_path / "temporary" / "m" / "handler.py").is_file()


def test_a_directory_that_is_gone(here: Path) -> None:
    (here / "handler.py").unlink()
    here.rmdir()
    assert problems() == ["the current directory has been removed; change to another one"]


def test_the_same_bytes_every_time(here: Path) -> None:
    made = order()
    assert made.plan.manifest.created_on == "02/02/2020 00:00:00"
    write_archive(made.plan, made.path)
    first = made.path.read_bytes()
    write_archive(order(force=True).plan, made.path)
    assert made.path.read_bytes() == first


@pytest.mark.parametrize("archive_format", ["default", "no-archive"])
def test_an_archive_is_not_part_of_itself(here: Path, archive_format: str) -> None:
    made = order(archive_format=archive_format, extra_files=".")
    write_archive(made.plan, made.path)
    again = order(archive_format=archive_format, extra_files=".", force=True)
    assert names(again) == names(made)
    assert again.warnings[0].startswith("Overwriting m")


def test_what_is_named_is_not_replaced(here: Path) -> None:
    made = order(archive_format="no-archive")
    write_archive(made.plan, made.path)
    (made.path / "mine.txt").touch()
    found = problems(archive_format="no-archive", extra_files="m/mine.txt", force=True)
    assert found == ["--extra-files: 'm/mine.txt' is in 'm', which will be replaced; move it"]


def test_force_leaves_nothing_of_the_old_directory(here: Path) -> None:
    made = order(archive_format="no-archive")
    write_archive(made.plan, made.path)
    (made.path / "old.txt").touch()
    again = order(archive_format="no-archive", force=True)
    write_archive(again.plan, again.path)
    assert not (made.path / "old.txt").exists()


def test_force_does_not_delete_somebodys_directory(here: Path) -> None:
    (here / "m").mkdir()
    (here / "m" / "thesis.txt").write_text("mine")
    made = order(archive_format="no-archive", force=True)
    with pytest.raises(ArchiveError, match="no model archive"):
        write_archive(made.plan, made.path)
    assert (here / "m" / "thesis.txt").read_text() == "mine"


def test_an_archive_appears_whole_or_not_at_all(here: Path) -> None:
    (here / "m.mar").mkdir()
    made = order(force=True)
    with pytest.raises(ArchiveError, match="cannot be written"):
        write_archive(made.plan, made.path)
    assert sorted(path.name for path in here.iterdir()) == ["handler.py", "m.mar"]
