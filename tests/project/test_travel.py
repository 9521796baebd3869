"""What a handler imports, and whether it arrives in the model directory."""

from __future__ import annotations

import pytest

from hatch_mar.archive.tarball import make_tarball
from hatch_mar.project.baggage import factory_source
from tests.project.scratch import FACTORY_HANDLER, FUNCTION_HANDLER, Scratch

USE = "\nhandler = handler_factory(init_function=dict)\n"
TARBALL = 'extra-layout = "tarball"\nextra-files = ["net/*.py"]\n'


def test_a_factory_handler_carries_the_factory_as_one_file(scratch: Scratch) -> None:
    scratch.write({"handler.py": FACTORY_HANDLER})
    source = scratch.content("base_handler.py")
    assert source == factory_source()
    assert b"\nHATCH_MAR_BASE_HANDLER = 1\n" in source
    assert "hatch_mar.py" not in scratch.members()


def test_an_import_from_the_package_gets_a_module_of_that_name(scratch: Scratch) -> None:
    scratch.write({"handler.py": f"from hatch_mar import handler_factory{USE}"})
    names = scratch.members()
    assert "base_handler.py" in names
    assert (
        scratch.content("hatch_mar.py")
        == b"from base_handler import handler_factory  # noqa: F401\n"
    )


def test_a_package_import_to_fall_back_on_needs_none(scratch: Scratch) -> None:
    scratch.write(
        {
            "handler.py": "try:\n    from base_handler import handler_factory\n"
            f"except ImportError:\n    from hatch_mar import handler_factory{USE}"
        }
    )
    assert "base_handler.py" in scratch.members()
    assert "hatch_mar.py" not in scratch.members()


def test_an_import_for_type_checkers_is_none(scratch: Scratch) -> None:
    scratch.write(
        {
            "handler.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
            f"    from base_handler import handler_factory\n{FUNCTION_HANDLER}"
        }
    )
    assert "base_handler.py" not in scratch.members()


@pytest.mark.parametrize("layout", ["tree", "tarball"])
def test_the_factory_is_found_behind_an_import(scratch: Scratch, layout: str) -> None:
    scratch.write(
        {
            "handler.py": "from net import handler\n",
            "net/__init__.py": "from .parts import handler\n",
            "net/parts.py": FACTORY_HANDLER,
        }
    )
    scratch.configure(
        f'handler = "handler.py:handler"\nextra-files = ["net"]\nextra-layout = "{layout}"'
    )
    assert "base_handler.py" in scratch.members()


def test_other_handlers_carry_nothing_of_ours(scratch: Scratch) -> None:
    assert list(scratch.members()) == ["handler.py", "requirements.txt"]


@pytest.mark.parametrize("mar", ['extra-files = ["base_handler.py"]', ""])
def test_an_authors_own_base_handler_wins(scratch: Scratch, mar: str) -> None:
    own = "def handler_factory(init_function): ...\n"
    scratch.write({"handler.py": FACTORY_HANDLER, "base_handler.py": own})
    scratch.configure(mar)
    assert scratch.content("base_handler.py").decode() == own


@pytest.mark.parametrize(
    ("source", "straggler"),
    [
        ("import model\n", "model.py"),
        ("from model import Net\n", "model.py"),
        ("import net.parts\n", "net/parts.py"),
        ("from net import parts\n", "net/parts.py"),
    ],
)
def test_a_module_that_stays_behind_is_an_error(
    scratch: Scratch, source: str, straggler: str
) -> None:
    scratch.write(
        {
            "handler.py": source + FUNCTION_HANDLER,
            "model.py": "",
            "net/parts.py": "",
            "net/a.py": "",
        }
    )
    scratch.configure('extra-files = ["net/a.py"]')
    module = straggler.removesuffix(".py").replace("/", ".")
    assert scratch.problem() == (
        f"handler.py: line 1: imports '{module}', but {straggler} stays behind; "
        "add it to `extra-files`"
    )


def test_a_relative_import_that_stays_behind(scratch: Scratch) -> None:
    scratch.write(
        {
            "handler.py": "import net\n" + FUNCTION_HANDLER,
            "net/__init__.py": "from .parts import x\n",
            "net/parts.py": "x = 1\n",
        }
    )
    scratch.configure('extra-files = ["net/__init__.py"]')
    assert scratch.problem().startswith("net/__init__.py: line 1: imports 'net.parts'")


@pytest.mark.parametrize(
    "source",
    [
        "try:\n    import model\nexcept ImportError:\n    model = None\n",
        "def f():\n    import model\n",
        "import json\n",
        "import numpy\n",
    ],
)
def test_imports_that_may_fail_or_are_elsewhere(scratch: Scratch, source: str) -> None:
    scratch.write({"handler.py": source + FUNCTION_HANDLER, "model.py": "", "json.py": ""})
    assert scratch.spec().notes == ()


def test_a_package_that_only_pip_brings_is_noted(scratch: Scratch) -> None:
    scratch.write({"handler.py": "import net\n" + FUNCTION_HANDLER, "net/__init__.py": ""})
    assert '`packages = ["net"]` takes it along' in scratch.spec().notes[0]
    scratch.configure('packages = ["net"]')
    assert scratch.spec().notes == ()


def test_code_in_the_tarball_must_wait_for_the_factory(scratch: Scratch) -> None:
    first, second = "from net import parts\n", "from base_handler import handler_factory\n"
    scratch.write({"handler.py": first + second + USE, "net/parts.py": ""})
    scratch.configure(TARBALL)
    (note,) = scratch.spec().notes
    assert note.startswith("handler: imports net.parts before base_handler, which unpacks")
    scratch.write({"handler.py": second + first + USE})
    assert scratch.spec().notes == ()


def test_code_in_a_ready_made_tarball_arrives(scratch: Scratch) -> None:
    scratch.write(
        {
            "handler.py": f"from base_handler import handler_factory\nfrom net.a import x{USE}",
            "net/a.py": "x = 1\n",
            "net.tar": make_tarball({"net/a.py": b"x = 1\n"}, gzip=False),
        }
    )
    scratch.configure('system.extra-files = "net.tar"')
    assert scratch.spec().notes == ()


def test_code_in_a_ready_made_tarball_must_wait_for_the_factory_too(scratch: Scratch) -> None:
    scratch.write(
        {
            "handler.py": f"from net.a import x\nfrom base_handler import handler_factory{USE}",
            "net.tar": make_tarball({"net/a.py": b"x = 1\n"}, gzip=False),
        }
    )
    scratch.configure('system.extra-files = "net.tar"')
    assert "imports net.a before base_handler" in scratch.spec().notes[0]


def test_a_tarball_without_the_factory_is_for_our_server_only(scratch: Scratch) -> None:
    scratch.write({"net/parts.py": ""})
    scratch.configure(TARBALL)
    assert "only hatch-mar's server unpacks the tarball" in scratch.spec().notes[0]


def test_a_moved_file_is_followed_by_its_new_name(scratch: Scratch) -> None:
    scratch.write({"handler.py": "import a.b.c.d\n" + FUNCTION_HANDLER, "x.py": FACTORY_HANDLER})
    scratch.configure('extra-files = [{ from = "x.py", to = "a/b/c/d.py" }]')
    assert "base_handler.py" in scratch.members()
