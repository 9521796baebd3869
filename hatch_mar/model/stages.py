"""A loaded model taken apart, as the worker's loop sees it: no torch in here."""

# ruff: noqa: ANN401 - what stands for a batch is the implementation's own

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.protocol import Request, Response


class Stages(Protocol):
    """While one batch computes, the next is prepared, and the one before is finished.

    A batch goes through `begin`, `prepare`, `compute`, `finish` and `end`; after one of the three
    in the middle has raised, `recover` takes the place of what is left of them. `prepare` and
    `finish` may be called from any thread, beside everything else; the others from the thread that
    loaded the model. Batches are computed, finished and ended in the order in which they began.
    """

    threads: int
    """How many batches may be prepared at once."""
    batches: int
    """How many may have begun and not ended."""

    def admits(self, requests: Sequence[Request]) -> bool:
        """Tell whether `requests` may go through as a batch; if not, they are for `predict`.

        `predict` runs beside no other batch.
        """
        ...

    def begin(self, requests: Sequence[Request]) -> Any:
        """Return what stands for the batch in the calls below."""
        ...

    def prepare(self, batch: Any) -> None:
        """Make of the requests what the model takes, and have it copied to the device.

        Like `compute` and `finish` it raises whatever the handler does.
        """
        ...

    def compute(self, batch: Any) -> None:
        """Have the device run the model. It returns before that is done, if the model lets it."""
        ...

    def finish(self, batch: Any) -> list[Response]:
        """Wait for the device, and return the responses, one for each request, in order."""
        ...

    def runs_again(self, batch: Any, error: BaseException) -> bool:
        """Tell whether `recover` would run the batch again, which wants no other beside it.

        Others may be prepared meanwhile, but not computing, nor in the hands of another thread.
        """
        ...

    def recover(self, batch: Any, error: BaseException) -> list[Response]:
        """Return the responses of a batch that raised `error`; see `Servable.predict`."""
        ...

    def end(self, batch: Any) -> None:
        """Take back what the batch had; whatever stage it has come to."""
        ...
