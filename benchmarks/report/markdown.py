"""Tables in markdown, and the lines below them that say how the figures were taken."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *(["--:"] * (len(header) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def spread(values: Sequence[float], digits: int) -> str:
    low, high = (f"{pick(values):,.{digits}f}" for pick in (min, max))
    return f"{median(values):,.{digits}f} [{low}-{high}]"


def conditions(results: dict[str, Any]) -> str:
    machine = results["machine"]
    text = f"{results['rounds']} rounds"
    if "points" in results:
        foreign = [point["foreign"] for point in results["points"]]
        text += f" of {results['seconds']} s a point; other work kept {median(foreign):.2f} cores"
        text += f" busy, at most {max(foreign):.2f}"
    cores = f"{machine['cores']} cores of {machine['processor']}"
    return f"{text}. {cores}, {machine['system']}, Python {machine['python']}."


def versions(of_peers: dict[str, dict[str, str]]) -> str:
    packages = {name: number for of_peer in of_peers.values() for name, number in of_peer.items()}
    return ", ".join(f"{name} {number}" for name, number in sorted(packages.items()))


def goals_table(rows: Iterable[tuple[str, str, float]], header: str = "goal") -> str:
    """Return the table of what was aimed at and measured; nothing if there is no row."""
    cells = [[goal, aim, f"{got:.2f}"] for goal, aim, got in rows]
    return markdown([header, "aim", "measured"], cells) if cells else ""
