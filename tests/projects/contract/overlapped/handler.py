"""Answers when it is told to, while it answers others."""

import asyncio


class Patient:
    def initialize(self, context):
        self.initialized = True

    async def handle(self, data, context):
        seconds = [row["body"] for row in data]
        await asyncio.sleep(max(seconds))
        if max(seconds) == 0.25:
            raise ValueError("no")
        return [{"slept": one, "id": len(context.get_request_id(0))} for one in seconds]
