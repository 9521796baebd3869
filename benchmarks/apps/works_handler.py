"""The handler that TorchServe and hatch-mar serve: the model's name is that of the task."""

from __future__ import annotations

from typing import Any

import works


class Handler:
    def initialize(self, context: Any) -> None:
        self.do = works.open_work(context.model_name)

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        return self.do([row["body"] for row in data])
