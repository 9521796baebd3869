from __future__ import annotations

import sys
from typing import Any

import litserve
import works


class Work(litserve.LitAPI):
    """The body of a request is JSON: others LitServe does not take."""

    def __init__(self, task: str) -> None:
        size = works.batch_size(task)
        wait = works.WAIT_MS / 1000 if size > 1 else 0.0
        super().__init__(max_batch_size=size, batch_timeout=wait, api_path=f"/{task}")
        self.task = task

    def setup(self, device: str) -> None:
        self.do = works.open_work(self.task)

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def predict(self, x: Any) -> Any:
        return self.do(x) if works.batch_size(self.task) > 1 else self.do([x])[0]


if __name__ == "__main__":
    accelerator, port = sys.argv[1:]
    server = litserve.LitServer(
        [Work(task) for task in works.TASKS], accelerator=accelerator, workers_per_device=1
    )
    server.run(
        host="127.0.0.1",
        port=int(port),
        num_api_servers=1,
        generate_client_file=False,
        log_level="warning",
    )
