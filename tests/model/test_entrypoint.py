"""Finding the handler: TorchServe's order, and the truth when it fails."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import pytest

from hatch_mar.errors import HandlerError
from hatch_mar.model.classes import classes_of
from hatch_mar.model.entrypoint import DEFAULT_HANDLERS

if TYPE_CHECKING:
    from tests.support.models import Ask, Load, MakeModel

CLASS = """
class {name}:
    def initialize(self, context):
        self.greeting = "hello"

    def handle(self, data, context):
        return [self.greeting + " from {name}" for _ in data]
"""
FUNCTION = """
seen = []

def {name}(data, context):
    seen.append(None if data is None else len(data))
    return None if data is None else ["{name} " + str(seen) for _ in data]
"""


@pytest.fixture
def answer(make_model: MakeModel, load_model: Load, ask: Ask) -> Any:
    """Load files as a model and return its answer to one request."""

    def ask_once(files: dict[str, str], handler: str = "handler.py", **options: Any) -> str:
        model = load_model(make_model(files, handler=handler, **options))
        (response,) = model.predict([ask(b"1")])
        assert not response.error
        return bytes(response.body).decode()

    return ask_once


@pytest.fixture
def fail(make_model: MakeModel, load_model: Load) -> Any:
    """Load files as a model, which must fail, and return the error."""

    def expect(files: dict[str, str], handler: str = "handler.py", **options: Any) -> HandlerError:
        with pytest.raises(HandlerError) as caught:
            load_model(make_model(files, handler=handler, **options))
        return caught.value

    return expect


@pytest.mark.parametrize("handler", ["handler.py", "handler", "code/handler.py"])
def test_the_only_class_of_the_module(answer: Any, handler: str) -> None:
    assert answer({"handler.py": CLASS.format(name="Digits")}, handler) == "hello from Digits"


def test_imported_classes_do_not_count(answer: Any) -> None:
    source = "from pathlib import Path\nfrom collections import OrderedDict\n"
    files = {"handler.py": source + CLASS.format(name="Digits")}
    assert answer(files) == "hello from Digits"


def test_a_function_is_called_without_data_first(answer: Any) -> None:
    assert answer({"handler.py": FUNCTION.format(name="handle")}) == "handle [None, 1]"


@pytest.mark.parametrize("handler", ["handler:infer", "handler.py:infer"])
def test_a_named_function(answer: Any, handler: str) -> None:
    files = {"handler.py": FUNCTION.format(name="infer")}
    assert answer(files, handler) == "infer [None, 1]"


def test_a_function_called_handle_beats_a_class(answer: Any) -> None:
    source = CLASS.format(name="Digits") + FUNCTION.format(name="handle")
    assert answer({"handler.py": source}) == "handle [None, 1]"


def test_a_named_class_among_several(answer: Any) -> None:
    source = CLASS.format(name="First") + CLASS.format(name="Second")
    assert answer({"handler.py": source}, "handler.py:Second") == "hello from Second"


def test_a_name_that_does_not_exist_leaves_the_only_class(answer: Any) -> None:
    files = {"handler.py": CLASS.format(name="Digits")}
    assert answer(files, "handler.py:nothing") == "hello from Digits"


def test_a_module_in_a_package(answer: Any) -> None:
    files = {"pkg/__init__.py": "", "pkg/mine.py": CLASS.format(name="Digits")}
    assert answer(files, "pkg.mine") == "hello from Digits"


def test_a_path_into_a_package(answer: Any) -> None:
    files = {"pkg/__init__.py": "", "pkg/mine.py": CLASS.format(name="Digits")}
    assert answer(files, "pkg/mine.py") == "hello from Digits"


def test_a_class_needs_no_initialize(answer: Any) -> None:
    source = "class A:\n    def handle(self, data, context):\n        return ['ok' for _ in data]\n"
    assert answer({"handler.py": source}) == "ok"


def test_an_archives_own_module_beats_a_default_handler(answer: Any) -> None:
    files = {"base_handler.py": CLASS.format(name="Mine")}
    assert answer(files, "base_handler") == "hello from Mine"


def test_a_factory_object_without_a_name(answer: Any) -> None:
    source = """
from base_handler import handler_factory

class Model:
    def __call__(self, sample):
        return sample

any_name = handler_factory(init_function=Model)
"""
    assert answer({"handler.py": source}) == "1"


def test_a_missing_handler_names_what_there_is(fail: Any) -> None:
    error = fail({"other.py": "", "model.py": ""}, "image_sorter")
    assert str(error) == (
        "handler 'image_sorter': there is no such module and no such default handler; "
        "Python files in the archive: model.py, other.py; default handlers: base_handler, "
        "image_classifier, image_segmenter, object_detector, text_classifier, densenet_handler, "
        "dali_image_classifier, vllm_handler, trt_llm_handler"
    )
    assert error.traceback == ""


def test_an_import_that_fails_is_shown_as_it_is(fail: Any) -> None:
    error = fail({"handler.py": "import tokenizerz\n"})
    assert str(error) == (
        "handler 'handler.py': importing it failed: "
        "ModuleNotFoundError: No module named 'tokenizerz'"
    )
    assert 'handler.py", line 1' in error.traceback
    assert "hatch_mar" not in error.traceback
    assert "importlib" not in error.traceback


def test_a_module_of_the_package_that_is_missing_inside_is_not_the_handler(fail: Any) -> None:
    files = {"pkg/__init__.py": "import nothing_like_this\n", "pkg/mine.py": "handle = print\n"}
    assert "No module named 'nothing_like_this'" in str(fail(files, "pkg.mine"))


def test_a_package_that_is_missing_is_a_missing_handler(fail: Any) -> None:
    assert "there is no such module" in str(fail({}, "nowhere.mine"))


def test_a_syntax_error_names_its_line(fail: Any) -> None:
    error = fail({"handler.py": "def handle(:\n"})
    assert "importing it failed: SyntaxError" in str(error)
    assert "def handle(:" in error.traceback


def test_two_classes_are_one_too_many(fail: Any) -> None:
    source = CLASS.format(name="First") + CLASS.format(name="Second")
    assert str(fail({"handler.py": source})) == (
        "handler 'handler.py': has neither a function `handle` nor exactly one class with a method "
        "`handle`; classes defined in it: 'First', 'Second'; name the right one as `file.py:name`"
    )


def test_a_class_must_have_handle(fail: Any) -> None:
    assert "classes defined in it: 'A'" in str(fail({"handler.py": "class A: pass\n"}))


def test_a_named_class_must_have_handle(fail: Any) -> None:
    error = fail({"handler.py": "class A: pass\n"}, "handler.py:A")
    assert str(error) == "handler 'handler.py:A': class 'A' has no method `handle`"


def test_a_constructor_that_fails_is_shown(fail: Any) -> None:
    source = CLASS.format(name="A") + "    def __init__(self):\n        {}['key']\n"
    error = fail({"handler.py": source})
    assert str(error) == "handler 'handler.py': A() failed: KeyError: 'key'"
    assert "{}['key']" in error.traceback


def test_an_initialize_that_fails_is_shown(fail: Any) -> None:
    source = (
        "import helper\n"
        "class A:\n"
        "    def initialize(self, context):\n        helper.prepare()\n"
        "    def handle(self, data, context):\n        return data\n"
    )
    helper = "def prepare():\n    raise OSError('no weights')\n"
    error = fail({"handler.py": source, "helper.py": helper})
    assert str(error) == ("handler 'handler.py': initialising it failed: OSError: no weights")
    assert error.traceback.startswith("Traceback (most recent call last):")
    assert [
        line for line in error.traceback.splitlines() if "File" in line and "hatch" in line
    ] == []
    assert "helper.prepare()" in error.traceback


def test_a_handler_that_exits_has_failed_to_load(fail: Any) -> None:
    error = fail({"handler.py": "import sys\nsys.exit(3)\n"})
    assert str(error) == "handler 'handler.py': importing it failed: SystemExit: 3"
    assert "hatch_mar" not in error.traceback


def test_an_unknown_envelope_is_refused(fail: Any) -> None:
    error = fail({"handler.py": FUNCTION.format(name="handle")}, envelope="json2")
    assert str(error) == (
        "service envelope 'json2': there is none; there are body, json, kserve, kservev2"
    )


@pytest.mark.parametrize("name", DEFAULT_HANDLERS)
def test_a_default_handler_has_a_module_with_one_class(name: str) -> None:
    (handler,) = classes_of(importlib.import_module(DEFAULT_HANDLERS[name]))
    assert callable(handler.handle)  # type: ignore[attr-defined]
