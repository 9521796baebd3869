"""What workers answer, on its way to those who asked."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from hatch_mar.model.protocol import join_pieces
from hatch_mar.serve.batching.jobs import NUMBER_MASK
from hatch_mar.serve.batching.open_batcher import OpenBatcher
from hatch_mar.serve.batching.sequences import SequenceBatcher
from hatch_mar.serve.channel import decode_pieces, decode_replies
from hatch_mar.serve.frames import ChannelError
from hatch_mar.serve.refusal import desert

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatch_mar.model.protocol import Response
    from hatch_mar.serve.batching.batcher import Batcher
    from hatch_mar.serve.batching.jobs import Job, Seat
    from hatch_mar.serve.batching.record import BatchRecord
    from hatch_mar.serve.batching.sequences import SequenceHeaders
    from hatch_mar.serve.brakes import Brakes
    from hatch_mar.serve.channel import Batch, TakeShared
    from hatch_mar.serve.metrics.store import Metrics

logger = logging.getLogger("hatch_mar.serve")

_LOST = "%s: a reply could not be delivered"


class Delivery:
    """Matches replies and pieces of one model version with its jobs, and hands them over."""

    def __init__(
        self,
        model: str,
        batcher: Batcher,
        brakes: Brakes,
        metrics: Metrics,
        record: BatchRecord,
        *,
        sequences: SequenceHeaders | None,
    ) -> None:
        """Deliver what the workers of `batcher` say; `sequences` where the model has some."""
        self._model = model
        self._batcher = batcher
        self._brakes = brakes
        self._metrics = metrics
        self._record = record
        self._sequences = sequences

    def take_replies(
        self,
        seat: Seat,
        payload: memoryview,
        replies: list[tuple[Job, Response]],
        take_shared: TakeShared,
    ) -> None:
        """Append to `replies` the jobs that a REPLIES frame answers, no longer held by `seat`.

        Raises:
            ChannelError: they are not the replies that are due; what came before is in `replies`.
        """
        for batch in decode_replies(payload, take_shared):
            self._take_back(seat, batch, replies)

    def take_pieces(self, seat: Seat, payload: memoryview) -> None:
        """Hand over the intermediate answers of a PIECES frame.

        Raises:
            ChannelError: the worker does not hold their requests.
        """
        held = {job.number & NUMBER_MASK: job for job in seat.held}
        for number, response in decode_pieces(payload):
            if number not in held:
                raise ChannelError("a piece of an answer that is not due")
            self._hand_on(held[number], response)
            self._end_sequences(response)

    def answer_all(self, replies: Sequence[tuple[Job, Response]]) -> None:
        """Give every job its answer; see `answer`."""
        for job, response in replies:
            if not (job.done or job.streams):
                job.done = True
                try:
                    job.on_reply(response)
                except Exception:
                    logger.exception(_LOST, self._model)
            else:
                self.answer(job, response)

    def answer(self, job: Job, response: Response) -> None:
        """Give `job` its answer, if it has none and was not cancelled."""
        if not job.done:
            job.done = True
            if job.streams:
                self._brakes.release(job)
            try:
                job.on_reply(response)
            except Exception:
                logger.exception(_LOST, self._model)

    def desert(self, jobs: list[Job]) -> None:
        """Tell `jobs` that nobody will serve them."""
        for job in jobs:
            self.answer(job, desert(self._model, job.tally.version))

    def _take_back(self, seat: Seat, batch: Batch, replies: list[tuple[Job, Response]]) -> None:
        """Match the replies of one batch with the jobs of its worker, and count them."""
        numbers, responses, started, seconds = batch
        jobs = self._match(seat, numbers, seconds)
        now, metrics = seat.since, self._metrics
        for place, job in enumerate(jobs):
            tally, arrived = job.tally, job.arrived
            tally.inference += now - arrived
            tally.queue += started - arrived
            replies.append((job, responses[place]))
        if self._sequences is not None:
            for response in responses:
                self._end_sequences(response)
        if jobs:
            metrics.queue_time = started - jobs[-1].arrived
            metrics.worker_thread_time = now - started - seconds
            if not responses[0].error:
                metrics.note_prediction(self._model, seconds, jobs)
                self._record.note(seat, jobs, started, seconds)
            else:
                self._record.failed += 1

    def _match(self, seat: Seat, numbers: Sequence[int], seconds: float) -> list[Job]:
        """Take the jobs of a batch from their worker: its oldest ones, if it keeps an order."""
        batcher = self._batcher
        if not batcher.ordered:
            assert isinstance(batcher, OpenBatcher)
            try:
                return batcher.answered_some(seat, numbers, seconds)
            except KeyError as error:
                raise ChannelError("a reply to a request that the worker does not hold") from error
        held, count = seat.held, len(numbers)
        if count > len(held):
            raise ChannelError("more replies than requests")
        for place, number in enumerate(numbers):
            if held[place].number & NUMBER_MASK != number:
                raise ChannelError("a reply to another request than the one that is due")
        return batcher.answered(seat, count, seconds)

    def _hand_on(self, job: Job, response: Response) -> None:
        """Give one piece to its client; an error is the last that it hears."""
        if response.error:
            self.answer(job, response)
        if job.done:
            return
        job.streams = True
        if job.on_piece is None:
            pieces: list[Response] = []
            job.on_piece, on_reply = pieces.append, job.on_reply
            job.on_reply = lambda last: on_reply(join_pieces(pieces, last))
        try:
            job.on_piece(response)
        except Exception:
            logger.exception("%s: a piece of an answer could not be delivered", self._model)

    def _end_sequences(self, response: Response) -> None:
        """End the sequences that a handler calls finished."""
        if self._sequences is not None and response.headers:
            assert isinstance(self._batcher, SequenceBatcher)
            for ident in self._sequences.ended(response):
                self.desert(self._batcher.finish(ident))
