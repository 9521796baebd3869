"""Extra files: which they are, and where each goes."""

from __future__ import annotations

import io
import tarfile

import pytest

from hatch_mar.archive.tarball import make_tarball
from tests.project.scratch import FACTORY_HANDLER, PROJECT, Scratch

TARBALL = 'extra-layout = "tarball"\n'
EMPTY_ZIP = b"PK\5\6" + bytes(18)


@pytest.fixture
def rich(scratch: Scratch) -> Scratch:
    """A project with files in folders; some of them nobody wants."""
    scratch.write(
        {
            "data/labels.txt": "a",
            "data/deep/words.txt": "b",
            "data/deep/more/words.csv": "c",
            "data/.cache/x.txt": "hidden",
            "data/__pycache__/x.txt": "cached",
            "data/deep/x.pyc": "compiled",
            "handler.py": FACTORY_HANDLER,
        }
    )
    return scratch


def extra_names(scratch: Scratch) -> list[str]:
    ours = {"handler.py", "requirements.txt", "base_handler.py"}
    return [name for name in scratch.members() if name not in ours]


def packed_names(scratch: Scratch, name: str = "extra_files.tar") -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(scratch.content(name))) as tar:
        return tar.getnames()


@pytest.mark.parametrize(
    ("layout", "extra", "names"),
    [
        ("tree", '"data/labels.txt"', ["data/labels.txt"]),
        ("tree", '"data"', ["data/deep/more/words.csv", "data/deep/words.txt", "data/labels.txt"]),
        (
            "tree",
            '"data/*"',
            ["data/deep/more/words.csv", "data/deep/words.txt", "data/labels.txt"],
        ),
        ("tree", '"data/**/*.txt"', ["data/deep/words.txt", "data/labels.txt"]),
        ("tree", '"data/.cache/x.txt"', ["data/.cache/x.txt"]),
        ("tree", '"./data/../data/labels.txt"', ["data/labels.txt"]),
        ("tree", '"data/labels.txt", "data/*.txt"', ["data/labels.txt"]),
        ("flat", '"data/labels.txt"', ["labels.txt"]),
        ("flat", '"data"', ["deep/more/words.csv", "deep/words.txt", "labels.txt"]),
        ("flat", '"data/**/*.txt"', ["labels.txt", "words.txt"]),
        ("tree", '{ from = "data/labels.txt", to = "names.txt" }', ["names.txt"]),
        ("tree", '{ from = "data/labels.txt", to = "names/" }', ["names/labels.txt"]),
        (
            "tree",
            '{ from = "data/deep", to = "words" }',
            ["words/more/words.csv", "words/words.txt"],
        ),
        ("tree", '{ from = "data/*.txt", to = "." }', ["labels.txt"]),
    ],
)
def test_places(rich: Scratch, layout: str, extra: str, names: list[str]) -> None:
    rich.configure(f'extra-files = [{extra}]\nextra-layout = "{layout}"')
    assert extra_names(rich) == names


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ('"data/label.txt"', ": 'data/label.txt' does not exist; did you mean 'data/labels.txt'?"),
        ('"data/*.json"', ": 'data/*.json' matches no file"),
        ('{ from = "dat", to = "x" }', ".from: 'dat' does not exist; did you mean 'data'?"),
        ('{ from = "data", to = "../x" }', ".to: '../x' is not in the model directory"),
        ('""', ": must not be empty"),
        ('"/etc/passwd"', ": '/etc/passwd' is absolute; write it relative to the project's root"),
        ('"../*"', ": '../*' leads out of the project; copy the file into it"),
    ],
)
def test_an_entry_that_is_nothing(rich: Scratch, extra: str, problem: str) -> None:
    rich.configure(f"extra-files = [{extra}]")
    assert rich.problem() == f"pyproject.toml: tool.mar.extra-files[0]{problem}"


def test_a_glob_does_not_follow_a_link_out_of_the_project(rich: Scratch) -> None:
    (rich.root.parent / "secret.txt").write_text("x")
    (rich.root / "data" / "secret.txt").symlink_to("../../secret.txt")
    rich.configure('extra-files = ["data/*.txt"]')
    assert "'data/secret.txt' leads out of the project" in rich.problem()


@pytest.mark.parametrize("pattern", ["data", "data/*", "data/**/*.txt"])
def test_a_loop_of_links_is_not_followed(rich: Scratch, pattern: str) -> None:
    rich.configure(f'extra-files = ["{pattern}"]')
    before = extra_names(rich)
    (rich.root / "data" / "again").symlink_to("../data")
    assert extra_names(rich) == before


def test_flat_names_that_meet_are_an_error(rich: Scratch) -> None:
    rich.write({"data/words.txt": "other"})
    rich.configure('extra-files = ["data/**/*.txt"]\nextra-layout = "flat"')
    assert rich.problem() == (
        "pyproject.toml: tool.mar.extra-files[0]: 'words.txt' (data/words.txt) collides with "
        "'words.txt' (data/deep/words.txt) of `extra-files[0]` in the model directory; give one "
        "another place (`{ from, to }`) or name"
    )


@pytest.mark.parametrize("pattern", ["**", "*", "."])
def test_what_a_build_leaves_is_not_in_the_next_archive(rich: Scratch, pattern: str) -> None:
    rich.configure(f'extra-files = ["{pattern}"]')
    before = extra_names(rich)
    rich.write({"dist/digits-1.0.mar": b"PK", "dist/digits-1.0.tar.gz": b"x"})
    assert extra_names(rich) == before


def test_what_is_asked_for_by_name_is_in_the_archive_wherever_it_lies(rich: Scratch) -> None:
    rich.write({"dist/exported.onnx": b"x"})
    rich.configure('extra-files = ["dist/*.onnx"]')
    assert extra_names(rich) == ["dist/exported.onnx"]


def test_the_build_directory_may_be_another(rich: Scratch) -> None:
    build = '\n[tool.hatch.build]\ndirectory = "out"\n'
    rich.write({"out/digits-1.0.mar": b"PK", "dist/words.txt": "x"})
    rich.configure('extra-files = ["**/*"]', project=PROJECT + build)
    names = extra_names(rich)
    assert "dist/words.txt" in names
    assert "out/digits-1.0.mar" not in names


@pytest.mark.parametrize("pattern", ["**", "*", "."])
def test_a_virtual_environment_is_no_extra_file(rich: Scratch, pattern: str) -> None:
    rich.write({"env/pyvenv.cfg": "", "env/lib/a.py": ""})
    rich.configure(f'extra-files = ["{pattern}"]')
    assert not [name for name in extra_names(rich) if name.startswith("env/")]


@pytest.mark.parametrize("layout", ["tree", "tarball"])
def test_weights_and_config_that_a_glob_holds_too_travel_once(rich: Scratch, layout: str) -> None:
    rich.write({"w.bin": b"x", "model-config.yaml": "batchSize: 2\n"})
    rich.configure(
        f'extra-layout = "{layout}"\nweights = "w.bin"\nextra-files = ["w*", "*.yaml", "data"]\n'
        "serve.max-batch-delay = 3"
    )
    spec = rich.spec()
    packed = [entry.name for entry in spec.tarball_entries]
    names = [member.name for member in rich.plan().members]
    assert names.count("w.bin") == names.count("model-config.yaml") == 1
    assert not {"w.bin", "model-config.yaml"}.intersection(packed)


@pytest.mark.parametrize("name", ["Handler.py", "handler.py/x.txt", "REQUIREMENTS.TXT"])
def test_names_that_meet_on_some_machine_are_an_error(rich: Scratch, name: str) -> None:
    rich.configure(f'extra-files = [{{ from = "data/labels.txt", to = "{name}" }}]')
    assert "collides with" in rich.problem()


@pytest.mark.parametrize("name", ["MAR-INF/x.txt", "mar-inf/x.txt", ".hatch-mar/x.txt"])
def test_reserved_folders(rich: Scratch, name: str) -> None:
    rich.configure(f'extra-files = [{{ from = "data/labels.txt", to = "{name}" }}]')
    assert "is in a folder that is not yours" in rich.problem()


def test_a_tarball_is_built_and_named_in_the_config(rich: Scratch) -> None:
    rich.configure(f'{TARBALL}extra-files = ["data/**/*.txt"]')
    assert extra_names(rich) == ["extra_files.tar", "model-config.yaml"]
    assert packed_names(rich) == ["data/deep/words.txt", "data/labels.txt"]
    assert rich.content("model-config.yaml") == b"system:\n  extraFiles: extra_files.tar\n"


@pytest.mark.parametrize(
    ("name", "magic"), [("code.tar", b"data"), ("code.tar.gz", b"\x1f\x8b"), ("c.tgz", b"\x1f\x8b")]
)
def test_the_config_names_the_tarball_to_build(rich: Scratch, name: str, magic: bytes) -> None:
    config = f"# mine\nsystem:\n  extraFiles: {name}\n"
    rich.write({"model-config.yaml": config})
    rich.configure(f'{TARBALL}extra-files = ["data/**/*.txt"]')
    assert rich.content(name).startswith(magic)
    assert rich.content("model-config.yaml").decode() == config


def test_the_table_names_the_tarball_to_build(rich: Scratch) -> None:
    rich.configure(f'{TARBALL}extra-files = ["data"]\nsystem.extra-files = "code.tar"')
    assert "code.tar" in rich.members()


def test_ready_made_tarballs_travel_as_they_are(rich: Scratch) -> None:
    rich.write({"libs/a.zip": EMPTY_ZIP, "b.tar": make_tarball({}, gzip=False)})
    rich.configure(f'{TARBALL}extra-files = ["data"]\nsystem.extra-files = ["libs/a.zip", "b.tar"]')
    assert extra_names(rich) == ["b.tar", "extra_files.tar", "libs/a.zip", "model-config.yaml"]
    assert rich.spec().config["system"]["extraFiles"] == ["libs/a.zip", "b.tar", "extra_files.tar"]


def test_an_extra_file_may_be_the_ready_made_tarball(rich: Scratch) -> None:
    rich.write({"build/a.zip": EMPTY_ZIP})
    rich.configure('extra-files = ["build/a.zip"]\nsystem.extra-files = "build/a.zip"')
    assert rich.content("build/a.zip") == EMPTY_ZIP


@pytest.mark.parametrize("listed", ["", 'extra-files = ["build/a.tgz"]\n'])
def test_a_tarball_that_no_server_could_unpack(rich: Scratch, listed: str) -> None:
    rich.write({"build/a.tgz": make_tarball({"a.py": b"x"}, gzip=True)[:-12]})
    rich.configure(f'{listed}system.extra-files = "build/a.tgz"')
    assert rich.problem().startswith("build/a.tgz: cannot be read: ")


def test_a_tarball_that_leads_out_is_one_problem(rich: Scratch) -> None:
    rich.configure('system.extra-files = "../a.tar"')
    message = "'../a.tar' holds an empty, '.' or '..' component"
    assert rich.problem() == f"pyproject.toml: tool.mar.system.extra-files: {message}"


@pytest.mark.parametrize(
    ("layout", "named", "message"),
    [
        ("tree", "codd.tar", "'codd.tar' does not exist; did you mean 'code.tar'?"),
        ("tree", "other.tgz", "'other.tgz' does not exist; `extra-layout = \"tarball\"` packs"),
        ("tarball", "code.zip", "'code.zip' is to be packed from `extra-files`, and would have to"),
    ],
)
def test_a_tarball_that_nobody_makes(rich: Scratch, layout: str, named: str, message: str) -> None:
    rich.write({"code.tar": b""})
    rich.configure(
        f'extra-layout = "{layout}"\nextra-files = ["data"]\nsystem.extra-files = "{named}"'
    )
    assert rich.problem().startswith(f"pyproject.toml: tool.mar.system.extra-files: {message}")


def test_a_tarball_named_in_the_file_is_complained_of_there(rich: Scratch) -> None:
    rich.write({"model-config.yaml": "system:\n  extraFiles: gone.tar\n"})
    assert rich.problem().startswith("model-config.yaml: system.extraFiles: 'gone.tar' does not")


def test_only_one_tarball_can_be_packed(rich: Scratch) -> None:
    rich.configure(f'{TARBALL}extra-files = ["data"]\nsystem.extra-files = ["a.tar", "b.tar"]')
    assert "'b.tar' does not exist, and `extra-files` make one tarball only" in rich.problem()


def test_what_is_packed_may_not_meet_what_is_not(rich: Scratch) -> None:
    rich.configure(
        f'{TARBALL}extra-files = [{{ from = "data/labels.txt", to = "requirements.txt" }}]'
    )
    assert "collides with 'requirements.txt'" in rich.problem()


@pytest.mark.parametrize("layout", ["tree", "flat", "tarball"])
def test_labels_always_lie_where_handlers_look(rich: Scratch, layout: str) -> None:
    rich.write({"data/index_to_name.json": '{"0": "zero"}'})
    rich.configure(f'extra-files = ["data/index_to_name.json"]\nextra-layout = "{layout}"')
    assert extra_names(rich) == ["index_to_name.json"]


def test_labels_beside_the_handler_are_taken_along(rich: Scratch) -> None:
    rich.write({"index_to_name.json": "{}"})
    assert "index_to_name.json" in rich.members()
    assert rich.spec().notes == ("index_to_name.json: taken along, as it lies beside the handler",)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[1]", "must be an object of class index to name")],
)
def test_labels_that_no_handler_can_read(rich: Scratch, text: str, message: str) -> None:
    rich.write({"index_to_name.json": text})
    assert rich.problem().startswith(f"index_to_name.json: {message}")


@pytest.mark.parametrize(
    "entry", ['"a[1].txt"', '"a[[]1].txt"', '{ from = "a[1].txt", to = "./" }']
)
def test_a_file_that_is_called_like_a_glob(scratch: Scratch, entry: str) -> None:
    scratch.write({"a[1].txt": "meant", "a1.txt": "not meant"})
    scratch.configure(f"extra-files = [{entry}]")
    assert scratch.content("a[1].txt") == b"meant"
    assert "a1.txt" not in scratch.members()


@pytest.mark.parametrize("pattern", ["*", "data", "data/*", "data/link"])
def test_a_link_to_nothing_is_named(scratch: Scratch, pattern: str) -> None:
    scratch.write({"data/a": "1"})
    (scratch.root / "data" / "link").symlink_to("nowhere")
    scratch.configure(f'extra-files = ["{pattern}"]')
    assert "'data/link' is a link to 'nowhere', which does not exist" in scratch.problem()


def test_a_tarball_may_hold_what_is_there_with_the_same_bytes(scratch: Scratch) -> None:
    scratch.write({"a": "1", "x.tar": make_tarball({"a": b"1"}, gzip=False)})
    scratch.configure('extra-files = ["a"]\nsystem.extra-files = "x.tar"')
    assert {"a", "x.tar"} <= set(scratch.members())


@pytest.mark.parametrize(
    ("first", "second", "other"),
    [("handler.py", "b", "handler.py"), ("a", "a", "x.tar"), ("a", "A", "x.tar")],
)
def test_a_tarball_replaces_nothing(scratch: Scratch, first: str, second: str, other: str) -> None:
    for name, inner in (("x.tar", {first: b"1"}), ("y.tar", {second: b"2"})):
        scratch.write({name: make_tarball(inner, gzip=False)})
    scratch.configure('system.extra-files = ["x.tar", "y.tar"]')
    assert f"which '{other}' has put into the model directory" in scratch.problem()


def test_a_tarball_is_named_once(scratch: Scratch) -> None:
    scratch.write({"x.tar": make_tarball({"a": b"1"}, gzip=False)})
    scratch.configure('system.extra-files = ["x.tar", "x.tar"]')
    assert scratch.problem().endswith("system.extra-files: names 'x.tar' twice")
