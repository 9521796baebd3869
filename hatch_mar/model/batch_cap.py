"""How many requests a batch may have, learnt from what did not fit. No clock and no device here."""

from __future__ import annotations

PATIENCE = 100
"""So many full batches have to fit before one request more is tried."""
MOST_PATIENCE = 100 * PATIENCE


class BatchCap:
    """Halves when a batch did not fit, and grows by one when many in a row did.

    One that did not fit right after the cap had grown puts it back to what had fitted before, and
    the next try has to wait twice as long: a batch size that fits is found within few failures, and
    a device whose memory somebody else took for a while is used in full again.
    """

    def __init__(self, batch_size: int, *, patience: int = PATIENCE) -> None:
        """Start with `batch_size`, which is never exceeded."""
        self.limit = batch_size
        """The most requests that a batch may have now; at least 1."""
        self._batch_size = batch_size
        self._first_patience = self._patience = patience
        self._streak = 0
        self._good = 0
        """The largest batch that has fitted since something did not; 0 before that is known."""

    def fitted(self, size: int) -> None:
        """Hear that a batch of `size` was answered."""
        if self.limit == self._batch_size or size < self.limit:
            return
        self._good = self.limit
        self._streak += 1
        if self._streak >= self._patience:
            self._streak = 0
            self.limit += 1

    def failed(self, size: int) -> None:
        """Hear that a batch of `size` had no room."""
        if size > self.limit or size <= 1:
            return
        probed = 0 < self._good < size
        self.limit = self._good if probed else size // 2
        self._good = self._good if probed else 0
        self._patience = min(2 * self._patience, MOST_PATIENCE) if probed else self._first_patience
        self._streak = 0
