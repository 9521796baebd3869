"""Default handlers of TorchServe around somebody else's engine: names, and what to do instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from hatch_mar.errors import HandlerError
from hatch_mar.model.base_handler import BaseHandler

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.context import Context


class EngineHandler(BaseHandler):
    """Can be imported and derived from; says what is needed when it would load a model."""

    name: ClassVar[str] = "engine"
    """As manifests write it."""
    needs: ClassVar[str] = ""
    """The original's engine, and how pip installs it."""
    instead: ClassVar[str] = ""

    def initialize(self, context: Context) -> None:
        """Refuse.

        Raises:
            HandlerError: always.
        """
        self._refuse(context)

    def handle(self, data: Sequence[Any], context: Any) -> list[Any]:  # noqa: ARG002, ANN401
        """Refuse, if a subclass loads in another way and has no `handle`."""
        return self._refuse(context)

    def _refuse(self, _: Any) -> NoReturn:  # noqa: ANN401
        raise HandlerError(
            f"default handler {self.name!r}: the original is a wrapper around {self.needs}; "
            f"hatch-mar has none: {self.instead}"
        )
