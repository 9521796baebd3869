"""Types of the fixtures that make and load models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hatch_mar.model.protocol import LoadOptions, Request
from hatch_mar.model.servable import LoadedModel

MakeModel = Callable[..., LoadOptions]
"""Writes files into the model directory and returns the options that load it."""
Load = Callable[[LoadOptions], LoadedModel]
Ask = Callable[..., Request]
"""Makes a request with one body."""
RunPython = Callable[..., Any]
"""Runs code in a process of its own and returns the JSON it prints last."""
