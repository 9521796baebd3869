"""`ts.protocol.otf_message_handler`: the older home of a name that handlers import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatch_mar.model.streaming import send_intermediate_predict_response

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__: Sequence[str] = ["send_intermediate_predict_response"]
