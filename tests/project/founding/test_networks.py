"""The network in a file, by reading."""

from __future__ import annotations

import pytest

from hatch_mar.project.founding.networks import Network, read_networks
from hatch_mar.project.source import SourceError


def names(source: str) -> list[str]:
    return [network.name for network in read_networks(source.encode())]


def test_a_subclass_of_module_is_one() -> None:
    assert names("from torch import nn\nclass A(nn.Module): pass\nclass B: pass") == ["A"]


def test_a_forward_makes_one_whatever_the_base() -> None:
    assert names("class A(Zoo):\n    def forward(self, x): return x") == ["A"]


def test_a_base_in_the_file_is_followed() -> None:
    assert names("class A(Module): pass\nclass B(A): pass") == ["B"]


def test_parts_are_not_the_model() -> None:
    source = "class A(Module): pass\nclass B(Module):\n    def __init__(self): self.a = A()"
    assert names(source) == ["B"]


def test_two_that_need_each_other_both_stay() -> None:
    source = "class A(Module):\n    b = lambda: B()\nclass B(Module):\n    a = lambda: A()"
    assert names(source) == ["A", "B"]


def test_the_constructor_says_what_it_needs() -> None:
    source = "class A(Module):\n    def __init__(self, a, b=1, *, c, d=2, **rest): pass"
    assert read_networks(source.encode()) == (
        Network(name="A", required=("a", "c"), accepted=("a", "b", "c", "d"), open_ended=True),
    )


def test_so_does_an_inherited_one() -> None:
    source = "class A(Module):\n    def __init__(self, width): pass\nclass B(A): pass"
    assert read_networks(source.encode())[0].required == ("width",)


@pytest.mark.parametrize("source", [b"class", b"\xff\xfe", b"x = '\0'"])
def test_what_is_not_python(source: bytes) -> None:
    with pytest.raises(SourceError):
        read_networks(source)
