"""What a worker can do without a server: the same handler, bytes and batches, in a loop.

It takes one JSON object on its standard input and prints another. With `bodies`, paths of request
bodies, it says the right answer to each, in base64. With `sizes`, it takes batches of these sizes
in turn for `seconds`, all of them of the first body, and says how many requests a second that are:
`loop` as hatch-mar's worker does it, from a request's bytes to an answer's, and `function` for what
the handler calls alone.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import works

from hatch_mar.model.loading import load
from hatch_mar.model.protocol import LoadOptions, Part, Request
from hatch_mar.serve.allocation import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

BATCHES_TO_WARM = 20


def main() -> None:
    keep_freed_memory()
    order = json.load(sys.stdin)
    task, content_type = order["task"], order["content_type"]
    bodies = [Path(path).read_bytes() for path in order["bodies"]]
    device = order.get("gpu")
    options = LoadOptions(
        model_name=task,
        model_version="1.0",
        model_dir=str(Path(__file__).parent),
        handler="works_handler.py",
        batch_size=works.batch_size(task),
        gpu_id=device,
    )
    model = load(options)

    def predict(bodies: Sequence[bytes]) -> list[Any]:
        return model.predict([make_request(body, content_type) for body in bodies])

    if "sizes" not in order:
        answers = [bytes(predict([body])[0].body) for body in bodies]
        print(json.dumps([base64.b64encode(answer).decode() for answer in answers]))
        return
    row = json.loads(bodies[0]) if works.takes_json(task) else bytearray(bodies[0])
    do = works.open_work(task)
    rates = {
        "loop": measure(lambda size: predict([bodies[0]] * size), order),
        "function": measure(lambda size: do([row] * size), order),
    }
    print(json.dumps(rates))


def make_request(body: bytes, content_type: str) -> Request:
    """Return a request as the channel hands it to the worker's loop."""
    headers = [
        ("Host", "127.0.0.1:8080"),
        ("Content-Length", str(len(body))),
        ("Content-Type", content_type),
    ]
    return Request("x", headers, [Part("body", content_type, body)])


def measure(do: Callable[[int], object], order: dict[str, Any]) -> float:
    """Return the requests a second of `do`, called with the sizes of batches."""
    sizes = cycle(order["sizes"])
    for _ in range(BATCHES_TO_WARM):
        do(next(sizes))
    done, began = 0, time.perf_counter()
    while (now := time.perf_counter()) < began + order["seconds"]:
        size = next(sizes)
        do(size)
        done += size
    # The last look at the clock was after the last batch.
    return done / (now - began)


if __name__ == "__main__":
    main()
