"""`ts.metrics.metric_cache_errors`: what handlers may catch of `context.metrics`."""

from __future__ import annotations


class MetricsCacheKeyError(KeyError):
    """There is no such metric."""

    def __str__(self) -> str:
        """Return the message as it is: a KeyError would put it in quotes."""
        return str(self.args[0]) if self.args else ""


class MetricsCacheValueError(ValueError):
    """A value, or a unit, that the metric does not have."""


class MetricsCacheTypeError(TypeError):
    """An argument of another type than asked for."""
