"""Raw results to markdown: medians, ranges, and the ratios that were promised."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.report.building import tabulate_hook, tabulate_packaging, tabulate_weights
from benchmarks.report.gpu import tabulate_gpu
from benchmarks.report.loads import tabulate_bodies, tabulate_image, tabulate_overload
from benchmarks.report.serving import tabulate_echo, tabulate_net
from benchmarks.report.starting import tabulate_ready, tabulate_start, tabulate_warm_start
from tests.support.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = ROOT / "docs" / "explanation" / "performance.md"
TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "echo": tabulate_echo,
    "net": tabulate_net,
    "image": tabulate_image,
    "overload": tabulate_overload,
    "bodies": tabulate_bodies,
    "gpu": tabulate_gpu,
    "start": tabulate_start,
    "ready": tabulate_ready,
    "warm-start": tabulate_warm_start,
    "weights": tabulate_weights,
    "packaging": tabulate_packaging,
    "hook": tabulate_hook,
}


def publish(name: str, results: dict[str, Any]) -> None:
    """Put the tables of `results` between their markers in the documentation's page."""
    page = PAGE.read_text(encoding="utf-8")
    start, end = f"<!-- results: {name} -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(start)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{PAGE.name}: no place marked {start!r} ... {end!r}")
    tables = TABLES[name](results)
    PAGE.write_text(f"{before}{start}\n\n{tables}\n\n{end}{after}", encoding="utf-8")
