"""Which handler is meant, and what the manifest says so that TorchServe's three steps find it."""

from __future__ import annotations

import ast

import pytest

from tests.project.scratch import FACTORY_HANDLER, FUNCTION_HANDLER, INHERITING_HANDLER, Scratch

TWO_CLASSES = """\
class Reader:
    pass


class Digits:
    def initialize(self, context): ...
    def handle(self, data, context): ...
"""
ONE_CLASS = TWO_CLASSES.partition("\n\n\n")[2]


def manifest_handler(scratch: Scratch) -> str | None:
    return scratch.plan().manifest.handler


def test_handler_py_is_the_convention(scratch: Scratch) -> None:
    assert manifest_handler(scratch) == "handler.py"


def test_without_handler_py_the_key_is_required(scratch: Scratch) -> None:
    (scratch.root / "handler.py").unlink()
    assert scratch.problem().startswith(
        "pyproject.toml: tool.mar.handler: is required, because there is no handler.py"
    )


@pytest.mark.parametrize(
    "name",
    ["base_handler", "image_classifier", "image_segmenter", "object_detector", "text_classifier"],
)
def test_a_default_handler_carries_no_file(scratch: Scratch, name: str) -> None:
    scratch.write({"w.pt": b"1"})
    scratch.configure(f'handler = "{name}"\nweights = "w.pt"')
    plan = scratch.plan()
    assert plan.manifest.handler == name
    assert plan.runtime == "torchscript"
    assert [member.name for member in plan.members] == ["requirements.txt", "w.pt"]


@pytest.mark.parametrize(
    ("handler", "hint"),
    [
        ("image_clasifier", "did you mean 'image_classifier'?"),
        ("handler", "did you mean 'handler.py'?"),
        ("handler.p", "did you mean 'handler.py'?"),
    ],
)
def test_a_handler_that_is_nothing(scratch: Scratch, handler: str, hint: str) -> None:
    scratch.configure(f'handler = "{handler}"')
    assert scratch.problem().endswith(hint)


def test_a_missing_file_suggests_the_nearest(scratch: Scratch) -> None:
    scratch.configure('handler = "hanlder.py"')
    assert scratch.problem() == (
        "pyproject.toml: tool.mar.handler: 'hanlder.py' does not exist; did you mean 'handler.py'?"
    )


def test_a_syntax_error_names_file_and_line(scratch: Scratch) -> None:
    scratch.write({"handler.py": "import os\ndef handle(:\n"})
    assert scratch.problem() == "handler.py: line 2: invalid syntax"


@pytest.mark.parametrize(
    ("source", "attribute", "manifest"),
    [
        (FUNCTION_HANDLER, "", "handler.py"),
        (FUNCTION_HANDLER, ":handle", "handler:handle"),
        ("async def predict(data, context): ...\n", ":predict", "handler:predict"),
        ("from somewhere import predict\n", ":predict", "handler:predict"),
        ("from somewhere import handle\n", "", "handler.py"),
        ("from somewhere import *\n", ":predict", "handler:predict"),
        (ONE_CLASS, "", "handler.py"),
        (ONE_CLASS, ":Digits", "handler.py"),
        ("if True:\n    class Digits:\n        initialize = handle = print\n", "", "handler.py"),
        (FACTORY_HANDLER, "", "handler:handler"),
        (FACTORY_HANDLER, ":handler", "handler:handler"),
        (TWO_CLASSES + FUNCTION_HANDLER, "", "handler.py"),
        (TWO_CLASSES, ":Digits", "hatch_mar_handler.py"),
        (ONE_CLASS + FUNCTION_HANDLER, ":Digits", "hatch_mar_handler.py"),
    ],
)
def test_what_the_manifest_says(
    scratch: Scratch, source: str, attribute: str, manifest: str
) -> None:
    scratch.write({"handler.py": source})
    scratch.configure(f'handler = "handler.py{attribute}"')
    assert manifest_handler(scratch) == manifest


@pytest.mark.parametrize(
    ("source", "factory"),
    [
        (
            "from base_handler import handler_factory as make\nentry = make(init_function=f)",
            "entry",
        ),
        ("import base_handler\nentry = base_handler.handler_factory(init_function=f)", "entry"),
        (
            "from hatch_mar import handler_factory\nentry = handler_factory(init_function=f)",
            "entry",
        ),
        ("import hatch_mar\nentry: object = hatch_mar.handler_factory(f)", "entry"),
        (
            (
                "try:\n    from base_handler import handler_factory\nexcept ImportError:\n"
                "    from hatch_mar import handler_factory\nentry = handler_factory(f)"
            ),
            "entry",
        ),
    ],
)
def test_a_factory_is_found_however_it_is_imported(
    scratch: Scratch, source: str, factory: str
) -> None:
    scratch.write({"handler.py": f"{source}\n"})
    plan = scratch.plan()
    assert plan.manifest.handler == f"handler:{factory}"
    assert plan.runtime == "eager"


def test_a_namesake_of_the_factory_is_none(scratch: Scratch) -> None:
    scratch.write({"handler.py": "from mine import handler_factory\nh = handler_factory()\n"})
    assert "no class, no function `handle`" in scratch.problem()


@pytest.mark.parametrize(
    ("source", "attribute", "message"),
    [
        ("X = 1\n", "", "has no class, no function `handle` and no handler_factory(...)"),
        (TWO_CLASSES, "", "has 2 classes (Reader, Digits) and no function `handle`; name one"),
        (FACTORY_HANDLER + "b = handler_factory()\n", "", "makes several (handler, b); name one"),
        ("def predict(): ...\n", ":predcit", "has no 'predcit'; did you mean 'predict'?"),
        ("from . import x\n", "", "line 1: a relative import"),
    ],
)
def test_a_file_that_is_no_handler(
    scratch: Scratch, source: str, attribute: str, message: str
) -> None:
    scratch.write({"handler.py": source})
    scratch.configure(f'handler = "handler.py{attribute}"')
    assert message in scratch.problem()


def test_a_file_name_that_cannot_be_imported(scratch: Scratch) -> None:
    scratch.write({"my-handler.py": FUNCTION_HANDLER})
    scratch.configure('handler = "my-handler.py"')
    assert "cannot be imported" in scratch.problem()


def test_a_handler_in_a_folder_lies_at_the_root_of_the_archive(scratch: Scratch) -> None:
    scratch.write({"src/serving.py": FUNCTION_HANDLER})
    scratch.configure('handler = "src/serving.py:handle"')
    assert manifest_handler(scratch) == "serving:handle"
    assert scratch.content("serving.py").decode() == FUNCTION_HANDLER


def test_a_class_in_a_package_gets_a_module_that_torchserve_understands(scratch: Scratch) -> None:
    scratch.write(
        {
            "src/digits_net/__init__.py": "",
            "src/digits_net/serving.py": "from .read import read\n\n\n" + TWO_CLASSES,
            "src/digits_net/read.py": "def read(): ...\n",
            "src/digits_net/__pycache__/read.cpython-311.pyc": b"x",
        }
    )
    scratch.configure('handler = "digits_net.serving:Digits"')
    plan = scratch.plan()
    assert plan.manifest.handler == "hatch_mar_handler.py"
    assert {member.name for member in plan.members} == {
        "digits_net/__init__.py",
        "digits_net/read.py",
        "digits_net/serving.py",
        "hatch_mar_handler.py",
        "requirements.txt",
    }
    shim = ast.parse(scratch.content("hatch_mar_handler.py"))
    assert [node.name for node in shim.body if isinstance(node, ast.ClassDef)] == ["Handler"]


def test_a_function_in_a_package_needs_no_module_of_ours(scratch: Scratch) -> None:
    scratch.write({"digits_net/__init__.py": "", "digits_net/serving.py": FUNCTION_HANDLER})
    scratch.configure('handler = "digits_net.serving:handle"')
    assert manifest_handler(scratch) == "digits_net.serving:handle"
    assert "hatch_mar_handler.py" not in scratch.members()


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        ("digits_net.servign:handle", "no module 'digits_net.servign'; did you mean"),
        (
            "digits_net.serving:hande",
            "digits_net/serving.py has no 'hande'; did you mean 'handle'?",
        ),
    ],
)
def test_a_mistake_in_a_package(scratch: Scratch, handler: str, message: str) -> None:
    scratch.write({"digits_net/__init__.py": "", "digits_net/serving.py": FUNCTION_HANDLER})
    scratch.configure(f'handler = "{handler}"')
    assert message in scratch.problem()


def test_packages_must_hold_the_handlers_own(scratch: Scratch) -> None:
    scratch.write({"digits_net/__init__.py": FUNCTION_HANDLER})
    scratch.configure('handler = "digits_net:handle"\npackages = []')
    assert "is a package of this project, but not in `packages`" in scratch.problem()


def test_packages_that_do_not_exist(scratch: Scratch) -> None:
    scratch.write({"src/digits_net/__init__.py": ""})
    scratch.configure('packages = ["digit_net"]')
    assert scratch.problem() == (
        "pyproject.toml: tool.mar.packages[0]: there is no package 'digit_net'; "
        "did you mean 'digits_net'?"
    )


def test_an_installed_object_is_read_and_not_imported(scratch: Scratch) -> None:
    scratch.configure('handler = "this:s"\nrequirements = []')  # `import this` prints a poem
    assert manifest_handler(scratch) == "hatch_mar_handler.py"
    assert b"from this import s as _handler" in scratch.content("hatch_mar_handler.py")


def test_an_installed_submodule_is_found_without_its_parent(scratch: Scratch) -> None:
    scratch.configure('handler = "json.decoder:JSONDecodr"')
    assert scratch.problem().endswith("has no 'JSONDecodr'; did you mean 'JSONDecoder'?")


def test_a_module_that_is_not_installed_here_is_noted(scratch: Scratch) -> None:
    scratch.configure('handler = "nobody_has.this_module:Handler"')
    spec = scratch.spec()
    assert spec.handler.manifest == "hatch_mar_handler.py"
    assert "not installed here" in spec.notes[0]


def test_a_module_that_no_dependency_can_bring(scratch: Scratch) -> None:
    scratch.configure(
        'handler = "nobody_has.this_module:Handler"',
        project='[project]\nname = "digits"\nversion = "1"\n',
    )
    assert "nor a dependency to bring it" in scratch.problem()


INITIALIZE = "    def initialize(self, context):\n        "


@pytest.mark.parametrize(
    ("source", "initialize"),
    [
        (INHERITING_HANDLER, "inherited"),
        (INHERITING_HANDLER + INITIALIZE + "super().initialize(context)\n", "inherited"),
        (INHERITING_HANDLER + INITIALIZE + "self.model = 1\n", "own"),
        ("class H:\n    def handle(self): ...\n", "own"),
        ("from abc import ABC\n\n\nclass H(ABC):\n    def handle(self): ...\n", "own"),
        ("from mine import Base\n\n\nclass H(Base): ...\n", "unknown"),
        (
            "from ts.torch_handler import vision_handler as v\n\n\nclass H(v.VisionHandler): ...\n",
            "inherited",
        ),
        (
            (
                "from ts.torch_handler.image_classifier import ImageClassifier as IC\n\n\n"
                "class H(IC): ...\n"
            ),
            "inherited",
        ),
    ],
)
def test_whose_initialize_loads_the_model(scratch: Scratch, source: str, initialize: str) -> None:
    scratch.write({"handler.py": source, "w.pt": b"1"})
    scratch.configure('weights = "w.pt"')
    assert scratch.spec().handler.initialize == initialize


def test_a_base_class_of_the_same_file_is_followed(scratch: Scratch) -> None:
    source = INHERITING_HANDLER.replace("class H", "class Base") + "\n\nclass H(Base): ...\n"
    scratch.write({"handler.py": source, "w.pt": b"1"})
    scratch.configure('handler = "handler.py:H"\nweights = "w.pt"')
    assert scratch.spec().handler.initialize == "inherited"


@pytest.mark.parametrize("file", ["own.py", "src/own.py"])
def test_a_module_of_the_project_is_written_as_a_file(scratch: Scratch, file: str) -> None:
    scratch.write({file: "class H: ...\n"})
    scratch.configure('handler = "own:H"')
    assert scratch.problem().endswith(f"is a file of this project; write '{file}:H'")


@pytest.mark.parametrize("attribute", ["a.b", "f(1)", "x; import os", "1"])
def test_an_attribute_is_a_name(scratch: Scratch, attribute: str) -> None:
    scratch.configure(f'handler = "missing.module:{attribute}"')
    assert f"'{attribute}' is no name of a function" in scratch.problem()
