from __future__ import annotations

import json
from typing import Any

import works
from mosec import Server, Worker


def make_worker(task: str) -> type[Worker]:
    class Task(Worker):
        def __init__(self) -> None:
            self.do = works.open_work(task)

        def deserialize(self, data: bytes) -> Any:
            return json.loads(data) if works.takes_json(task) else data

        def serialize(self, data: Any) -> bytes:
            return json.dumps(data).encode() if works.gives_json(task) else data

        def forward(self, data: Any) -> Any:
            # A worker without batches is given one request, and not a list of one.
            return self.do(data) if works.batch_size(task) > 1 else self.do([data])[0]

    Task.__qualname__ = Task.__name__ = f"Task_{task.replace('-', '_')}"
    return Task


# mosec starts its workers anew, and they look for their class in here.
WORKERS = {task: make_worker(task) for task in works.TASKS}
globals().update({worker.__name__: worker for worker in WORKERS.values()})

if __name__ == "__main__":
    server = Server()
    for task, worker in WORKERS.items():
        size = works.batch_size(task)
        server.append_worker(
            worker,
            num=1,
            max_batch_size=size,
            max_wait_time=works.WAIT_MS if size > 1 else 0,
            route=f"/{task}",
        )
    server.run()
