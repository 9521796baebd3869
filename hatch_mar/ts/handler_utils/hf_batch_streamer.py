"""`ts.handler_utils.hf_batch_streamer`: what a transformers model generates, for a whole batch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


class TextIteratorStreamerBatch:
    """One `transformers.TextIteratorStreamer` for each sequence of a batch.

    Give it to `model.generate(streamer=...)` in a thread, and iterate in another: each step yields
    a list of `{"text": piece}`, and it ends when any sequence does.
    """

    def __init__(
        self,
        tokenizer: Any,  # noqa: ANN401 - of transformers
        batch_size: int,
        skip_prompt: bool = False,  # noqa: FBT001, FBT002
        timeout: float | None = None,
        **decode_kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Decode with `tokenizer`; `decode_kwargs` go to its `decode`.

        Raises:
            ImportError: transformers is not installed.
        """
        try:
            transformers: Any = importlib.import_module("transformers")
        except ModuleNotFoundError as error:
            raise ImportError(
                "TextIteratorStreamerBatch needs transformers, which is not installed: "
                "pip install transformers, or name it in the archive's requirements.txt",
                name=error.name,
            ) from error
        self.batch_size = batch_size
        self.streamers = [
            transformers.TextIteratorStreamer(tokenizer, skip_prompt, timeout, **decode_kwargs)
            for _ in range(batch_size)
        ]
        self.streamer_iterators = [iter(streamer) for streamer in self.streamers]

    def put(self, value: Any) -> None:  # noqa: ANN401 - a tensor
        """Take the next tokens, one row for each sequence.

        Raises:
            ValueError: there are more or fewer rows.
        """
        if len(value) != self.batch_size:
            raise ValueError(
                f"the batch size is {self.batch_size}, got tokens of shape {tuple(value.shape)}"
            )
        for index, streamer in enumerate(self.streamers):
            streamer.put(value[index : index + 1])

    def end(self) -> None:
        """Say to every sequence that no more tokens come."""
        for streamer in self.streamers:
            streamer.end()

    def __iter__(self) -> Iterator[list[dict[str, str]]]:
        """Return itself."""
        return self

    def __next__(self) -> list[dict[str, str]]:
        """Return the next piece of every sequence."""
        return [{"text": next(iterator)} for iterator in self.streamer_iterators]
