"""Models compiled ahead of time answer as before, whatever a client sends.

The compiler is real: a C++ compiler and some seconds.
"""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

torch = pytest.importorskip("torch")

from hatch_mar.model.cuda.ahead import AheadModel, compile_module, compile_program  # noqa: E402

CPU = torch.device("cpu")

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache")]


def make_network(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 80), torch.nn.ReLU(), torch.nn.Linear(80, 70)
    ).eval()


def export(model: Any, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about itself
        return torch.export.export(model, *arguments, **options)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The compiler is asked once for each kind of model: tests share what is kept."""
    if shutil.which("c++") is None:
        pytest.fail("AOTInductor needs a C++ compiler: apt-get install g++")
    directory = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HATCH_MAR_CACHE_DIR", str(directory))
        # Other tests have loaded models that want it.
        patch.delenv("AOTI_RUNTIME_CHECK_INPUTS", raising=False)
        yield directory


@pytest.fixture(scope="module")
def ahead(cache: Path) -> AheadModel:
    return compile_module(make_network(), torch.ones(1, 4), CPU)


@pytest.mark.parametrize("rows", [1, 2, 3, 32])
def test_it_takes_any_number_of_rows(ahead: AheadModel, rows: int) -> None:
    batch = torch.randn(rows, 4)
    assert ahead.takes(batch)
    torch.testing.assert_close(ahead(batch), make_network()(batch))


@pytest.mark.parametrize(
    "batch",
    [
        torch.ones(0, 4),
        torch.ones(2, 5),
        torch.ones(2, 3),
        torch.ones(4),
        torch.ones(2, 4, 1),
        torch.ones(2, 4, dtype=torch.float64),
        [[1.0] * 4],
    ],
    ids=["no rows", "wider", "narrower", "one row", "deeper", "doubles", "a list"],
)
def test_what_it_was_not_compiled_for_never_reaches_the_code(ahead: AheadModel, batch: Any) -> None:
    """AOTInductor's code does not look at shapes: it would read what is not there."""
    assert not ahead.takes(batch)


def test_what_it_was_not_compiled_for_fails_as_the_model_does(ahead: AheadModel) -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        ahead(torch.ones(2, 5))


@pytest.mark.usefixtures("ahead")
def test_other_weights_take_the_code_that_is_kept(cache: Path) -> None:
    kept = sorted(cache.rglob("*.pt2"))
    other = make_network(seed=1)
    batch = torch.randn(2, 4)
    torch.testing.assert_close(compile_module(other, torch.ones(1, 4), CPU)(batch), other(batch))
    assert sorted(cache.rglob("*.pt2")) == kept


def test_inputs_have_as_many_rows_as_each_other() -> None:

    class Sum(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, left: Any, right: Any) -> Any:
            return left * 2 + right

    ahead = compile_module(Sum().eval(), (torch.ones(1, 3), torch.ones(1, 3)), CPU)
    assert ahead.takes(torch.ones(5, 3), torch.ones(5, 3))
    assert not ahead.takes(torch.ones(5, 3), torch.ones(4, 3))
    torch.testing.assert_close(ahead(torch.ones(5, 3), torch.ones(5, 3)), torch.full((5, 3), 3.0))


def test_an_exported_program_keeps_its_limits() -> None:
    network = make_network()
    shapes = ({0: torch.export.Dim("rows", min=1, max=64)},)
    program = export(network, (torch.ones(4, 4),), dynamic_shapes=shapes)
    ahead = compile_program(program, CPU)
    assert [rows for rows in (0, 1, 64, 65) if ahead.takes(torch.ones(rows, 4))] == [1, 64]
    torch.testing.assert_close(ahead(torch.ones(7, 4)), network(torch.ones(7, 4)))


def test_what_takes_no_tensors_is_refused() -> None:

    class Times(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, batch: Any, factor: int) -> Any:
            return batch * factor

    program = export(Times().eval(), (torch.ones(2, 2), 3))
    with pytest.raises(ValueError, match="its input 3 is not a tensor"):
        compile_program(program, CPU)


def test_the_shortest_weights_are_part_of_the_code(cache: Path) -> None:
    """Inductor writes up to eight numbers into the code, where no other weights reach them."""
    kept = len(list(cache.rglob("*.pt2")))
    for seed in (0, 1):
        torch.manual_seed(seed)
        model, batch = torch.nn.Linear(4, 3).eval(), torch.randn(2, 4)
        torch.testing.assert_close(compile_module(model, batch, CPU)(batch), model(batch))
    assert len(list(cache.rglob("*.pt2"))) == kept + 2


def test_what_answers_otherwise_is_refused() -> None:
    """Random numbers are drawn otherwise by compiled code: no compiler could be caught easier."""

    class Noise(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, batch: Any) -> Any:
            return batch + torch.rand_like(batch)

    with pytest.raises(AssertionError, match="not close"):
        compile_module(Noise().eval(), torch.ones(2, 16), CPU)


class Convolution(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Reads its input in every direction."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, 40, 3)

    def forward(self, images: Any) -> Any:
        return self.layer(images).relu().sum((2, 3)) + images[:, :1, 0, 1].sin()


def test_what_lies_otherwise_in_memory_never_reaches_the_code() -> None:
    """Nor does it look at strides: it would answer something else, or read what is not there."""
    model = Convolution().eval()
    ahead = compile_module(model, torch.randn(2, 3, 8, 8), CPU)
    wide = torch.randn(2, 3, 8, 16)
    for batch in (wide[..., ::2], wide[..., :8].contiguous(memory_format=torch.channels_last)):
        assert not ahead.takes(batch)
        torch.testing.assert_close(ahead(batch), model(batch))


def test_each_layout_has_its_own_code() -> None:
    model, last = Convolution().eval(), torch.channels_last
    compile_module(model, torch.randn(2, 3, 8, 8), CPU)
    other = Convolution().eval().to(memory_format=last)
    batch = torch.randn(2, 3, 8, 8).contiguous(memory_format=last)
    ahead = compile_module(other, batch, CPU)
    assert ahead.takes(batch)
    torch.testing.assert_close(ahead(batch), model(batch), rtol=1e-3, atol=1e-3)
