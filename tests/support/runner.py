"""A running server in a process of its own, as a user starts it."""

from __future__ import annotations
