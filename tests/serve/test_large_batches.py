"""Requests that left the door together are one batch, also where no socket holds them all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from hatch_mar.serve import Deployment, Response, Service

Maker = Callable[..., Deployment]

SIZES = """
def handle(data, context):
    if data is None:
        return None
    return [[len(data), len(row["body"]), sum(row["body"][:2])] for row in data]
"""


@pytest.mark.parametrize("size", [10, 12_000, 70_000, 300_000, 1_500_000])
@pytest.mark.parametrize("delay", [0, 60_000])
def test_they_are_answered_together(
    make_deployment: Maker,
    run_service: Callable[..., None],
    submit: Callable[..., asyncio.Future[Response]],
    size: int,
    delay: int,
) -> None:
    deployment = make_deployment(SIZES, batchSize=8, maxBatchDelay=delay)

    async def test(service: Service) -> None:
        replies = [submit(service, bytes([number, 1]) * (size // 2)) for number in range(8)]
        answers: list[Any] = [
            json.loads(bytes(reply.body)) for reply in await asyncio.gather(*replies)
        ]
        assert answers == [[8, size, number + 1] for number in range(8)]

    run_service(test, deployment)
