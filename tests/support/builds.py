"""Scratch projects, the local wheelhouse and real build front ends."""

from __future__ import annotations
