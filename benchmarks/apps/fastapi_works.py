"""What one writes first: routes with the model inline, which know no batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import works
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

app = FastAPI()


def make_route(task: str) -> Callable[[Request], Awaitable[Response]]:
    do = works.open_work(task)

    async def predict(request: Request) -> Response:
        body: Any = await (request.json() if works.takes_json(task) else request.body())
        (answer,) = do([body])
        return JSONResponse(answer) if works.gives_json(task) else Response(answer)

    return predict


for name in works.TASKS:
    app.post(f"/{name}")(make_route(name))
