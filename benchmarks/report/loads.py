"""The tables of slow models, large bodies and too many requests."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from benchmarks.report.markdown import conditions, goals_table, markdown, spread, versions
from benchmarks.report.points import CEILING, LOOP, OURS, Points
from benchmarks.report.serving import title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    Goal = tuple[str, str, float]

NOOP = "noop-1"


def tabulate_image(results: dict[str, Any]) -> str:
    """Return a table for each batch size, what the server adds to a no-op, and the goals."""
    parts, goals = [], []
    for task in results["tasks"]:
        points = Points.of_task(results, task)
        counts = [1] if task == NOOP else results["connections"]
        rows = [
            [name, *points.cells(name, counts), points.batch(name, max(counts))]
            for name in points.names()
        ]
        header = ["server"]
        for count in counts:
            header += [f"{count}: requests/s", f"{count}: p50 / p99 ms"]
        title = "The same bytes for a no-op" if task == NOOP else title_of(task)
        parts += [f"**{title}**", markdown([*header, f"{max(counts)}: mean batch"], rows)]
        goals += list(_noop_goals(points) if task == NOOP else _image_goals(points, task, counts))
    parts += [goals_table(goals, "hatch-mar, times"), conditions(results)]
    parts.append("Versions: " + versions(results["versions"]) + ".")
    return "\n\n".join(filter(None, parts))


def tabulate_bodies(results: dict[str, Any]) -> str:
    """Return the table of large bodies, and the part of the bare protocol's throughput."""
    points, counts = Points(results["points"]), results["connections"]
    rows = [
        [name, *points.cells(name, counts), points.cpu(name, max(counts))]
        for name in points.names()
    ]
    header = ["server"]
    for count in counts:
        header += [f"{count}: requests/s", f"{count}: p50 / p99 ms"]
    goals: list[Goal] = []
    if points.has(OURS, CEILING):
        for count in counts:
            ratio = points.median(OURS, "rate", count) / points.median(CEILING, "rate", count)
            goals.append((f"throughput, {count}: the bare protocol's", "at least 0.5", ratio))
    return "\n\n".join(
        (
            markdown([*header, "CPU µs/request"], rows),
            goals_table(goals, "hatch-mar, times"),
            f"{results['size'] / 1e6:.0f} MB in and out. " + conditions(results),
            "Versions: " + versions(results["versions"]) + ".",
        )
    )


def tabulate_overload(results: dict[str, Any]) -> str:
    """Return what of the capacity each server delivers when half, all and twice of it is asked."""
    overloads: list[dict[str, Any]] = results["overloads"]

    def of(name: str, load: float, key: str) -> list[float]:
        return [one[key] for one in overloads if (one["peer"], one["load"]) == (name, load)]

    names = list(dict.fromkeys(one["peer"] for one in overloads if not one["round"]))
    rows = [
        [
            name,
            f"{load:g}",
            spread(of(name, load, "goodput"), 2),
            *(f"{median(of(name, load, key)):.0%}" for key in ("answered", "refused", "failed")),
            *(f"{median(of(name, load, key)):.0f}" for key in ("p50", "p99", "most")),
            f"{median(of(name, load, 'refused_p99')):.1f}",
        ]
        for name in names
        for load in results["loads"]
    ]
    header = ["server", "load", "goodput", "answered", "refused", "failed"]
    header += ["p50 ms", "p99 ms", "most ms", "p99 of refusals ms"]
    goals: list[Goal] = []
    most, bounded = max(results["loads"]), results["bounded"]
    for name in (OURS, bounded["peer"]):
        if name in names and most > 1:
            goodput = median(of(name, most, "goodput"))
            goals.append((f"goodput at {most:g}: {name}", "at least 0.95", goodput))
    if bounded["peer"] in names:
        waits = (p99 - bounded["batch_ms"] for p99 in of(bounded["peer"], most, "p99"))
        ratio = median(waits) / bounded["bound_ms"]
        goals.append((f"wait, p99 at {most:g}: maxQueueDelay", "at most 1", ratio))
    late = max(one["late"] for one in overloads)
    text = f"Capacity {results['capacity']:.0f} requests/s; in time is within "
    text += f"{results['in_time']:g} s; the client was never later than {late:.0f} ms. "
    machine = {key: results[key] for key in ("machine", "rounds")}
    return "\n\n".join(
        filter(
            None,
            (
                markdown(header, rows),
                goals_table(goals),
                text + conditions(machine),
                "Versions: " + versions(results["versions"]) + ".",
            ),
        )
    )


def _image_goals(points: Points, task: str, counts: list[int]) -> Iterator[Goal]:
    if points.has(OURS, LOOP):
        for count in counts:
            ratio = points.median(OURS, "rate", count) / points.median(LOOP, "rate", count)
            aim = "at least 0.95" if count == max(counts) else ""
            yield f"{title_of(task)}, throughput, {count}: the worker's own loop's", aim, ratio


def _noop_goals(points: Points) -> Iterator[Goal]:
    if points.has(OURS, CEILING):
        for key in ("p50", "p99"):
            ratio = points.median(OURS, key, 1) / points.median(CEILING, key, 1)
            yield f"no-op, {key}, 1: the bare protocol's", "at most 3", ratio
