"""Raw results to markdown: medians, ranges, and the ratios that were promised."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from tests.support.environment import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

PAGE = ROOT / "docs" / "explanation" / "performance.md"
OURS, CEILING, MOSEC = "hatch-mar", "asyncio-protocol", "mosec"
TORCHSERVES = ("torchserve", "torchserve-quiet")


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


def tabulate_echo(results: dict[str, Any]) -> str:
    """Return the table of all peers, the goals, and a line on how it was measured."""
    points: list[dict[str, Any]] = results["points"]
    names = sorted({point["peer"] for point in points}, key=lambda name: -_rate(points, name))
    header = ["server"]
    for count in results["connections"]:
        header += [f"{count}: requests/s", f"{count}: p50 / p99 ms"]
    rows = [
        [name, *_cells(points, name, results["connections"]), *_costs(points, name)]
        for name in names
    ]
    parts = [
        _markdown([*header, "CPU µs/request", "PSS MB"], rows),
        _goals(points),
        _conditions(results),
        "Versions: " + _versions(results["versions"]) + ".",
    ]
    return "\n\n".join(filter(None, parts))


def tabulate_start(results: dict[str, Any]) -> str:
    starts: list[dict[str, Any]] = results["starts"]

    def of(what: str, key: str) -> list[float]:
        return [start[key] for start in starts if start["what"] == what]

    rows = [
        [
            what,
            _spread(of(what, "seconds"), 2),
            _spread(of(what, "pss"), 0),
            f"{median(of(what, 'processes')):.0f}",
        ]
        for what in ("script", "serve-digits")
    ]
    ratio = median(of("serve-digits", "seconds")) / median(of("script", "seconds"))
    more = median(of("serve-digits", "pss")) - median(of("script", "pss"))
    goals = [
        ["time to the first correct answer, against the script", "at most 1.3", f"{ratio:.2f}"],
        ["memory above the script's, MB", "at most 60", f"{more:.0f}"],
    ]
    return "\n\n".join(
        (
            _markdown(["program", "seconds to the first answer", "PSS MB", "processes"], rows),
            _markdown(["goal", "aim", "measured"], goals),
            _conditions(results),
        )
    )


def tabulate_ready(results: dict[str, Any]) -> str:
    """Return the times until all models are ready, against what loading each alone takes."""
    together, alone = results["together"], results["alone"]
    work = sum(
        median(each["cpu"] for each in alone if each["model"] == model)
        for model in sorted({each["model"] for each in alone})
    )
    bound = work / results["machine"]["cores"]
    seconds = [each["seconds"] for each in together]
    rows = [
        [
            f"{results['models']} models at once",
            _spread(seconds, 2),
            _spread([each["cpu"] for each in together], 2),
        ],
        [
            "one alone",
            _spread([each["seconds"] for each in alone], 2),
            _spread([each["cpu"] for each in alone], 2),
        ],
    ]
    goal = [
        "time until all are ready, against the CPU seconds of each alone, on all cores",
        "at most 1.2",
        f"{median(seconds) / bound:.2f}",
    ]
    return "\n\n".join(
        (
            _markdown(["started", "seconds until ready", "CPU seconds"], rows),
            _markdown(["goal", "aim", "measured"], [goal]),
            _conditions(results),
        )
    )


def tabulate_packaging(results: dict[str, Any]) -> str:
    runs: list[dict[str, Any]] = results["runs"]

    def values(what: str, key: str) -> list[float]:
        return [run[key] for run in runs if run["what"] == what]

    def of(what: str, key: str = "seconds") -> float:
        return median(values(what, key))

    names = list(dict.fromkeys(run["what"] for run in sorted(runs, key=lambda run: run["round"])))
    keys = {"seconds": 2, "cpu": 2, "peak_mb": 0, "temporary_mb": 0, "output_mb": 1}
    rows = [
        [name, *(_spread(values(name, key), digits) for key, digits in keys.items())]
        for name in names
    ]
    ours, wheel = "hatch-mar, .mar", "hatch-mar, wheel"
    peak, temporary = (
        max(of(name, key) for name in (ours, wheel)) for key in ("peak_mb", "temporary_mb")
    )
    goals = [
        [".mar: of cp and sha256sum", "at most 2.5", of(ours) / of("cp and sha256sum")],
        [".mar: torch-model-archiver's", "at least 10", of("torch-model-archiver") / of(ours)],
        ["wheel: hatchling's", "at least 10", of("hatchling, wheel") / of(wheel)],
        ["memory of both, MB", "below 100", peak],
        ["temporary files of both, MB", f"far below {_megabytes(results)}", temporary],
    ]
    for kind in results["sizes"]:
        fast, slow = (f"deflated, {kind}, {library}" for library in ("isal", "zlib"))
        size = of(fast, "output_mb") / of(slow, "output_mb")
        goals += [
            [f"deflated {kind}: zlib's time", "at least 5", of(slow) / of(fast)],
            [f"deflated {kind}: size, of zlib's", "about 1", size],
        ]
    header = ["build", "seconds", "CPU seconds", "peak MB", "temporary MB", "output MB"]
    return "\n\n".join(
        (
            _markdown(header, rows),
            _markdown(
                ["goal", "aim", "measured"], [[goal, aim, f"{got:.2f}"] for goal, aim, got in goals]
            ),
            f"{_megabytes(results)} MB of float32 weights, half as many of bfloat16. "
            + _conditions(results),
            "Versions: " + _versions(results["versions"]) + ".",
        )
    )


def tabulate_hook(results: dict[str, Any]) -> str:
    runs: list[dict[str, Any]] = results["runs"]
    names = list(dict.fromkeys(run["what"] for run in runs if not run["round"]))
    cpu = {name: [run["cpu"] for run in runs if run["what"] == name] for name in names}
    least = median(cpu[names[0]])
    rows = [[name, _spread(cpu[name], 2), f"{median(cpu[name]) / least:.2f}"] for name in names]
    return "\n\n".join(
        (
            _markdown(["`hatch build -t wheel`", "CPU seconds", "of the first"], rows),
            _conditions(results),
            "Versions: " + _versions(results["versions"]) + ".",
        )
    )


def _megabytes(results: dict[str, Any]) -> str:
    return f"{results['sizes']['float32'] / 1e6:.0f}"


def tabulate_warm_start(results: dict[str, Any]) -> str:
    starts: list[dict[str, Any]] = results["starts"]

    def of(what: str, key: str) -> list[float]:
        return [start[key] for start in starts if start["what"] == what]

    server, script = "hatch-mar serve", "script"
    keys = {"seconds": 2, "pss": 0, "read_mb": 0}
    rows = [
        [what, *(_spread(of(what, key), digits) for key, digits in keys.items())]
        for what in (script, server)
    ]
    ratio = median(of(server, "seconds")) / median(of(script, "seconds"))
    read = max(of(server, "read_mb"))
    goals = [
        ["time to the first answer, against the script", "at most 1.3", f"{ratio:.2f}"],
        [
            "read, not mapped, by all of the server, MB",
            f"far below {results['size'] / 1e6:.0f}",
            f"{read:.0f}",
        ],
    ]
    return "\n\n".join(
        (
            _markdown(["program", "seconds to the first answer", "PSS MB", "read MB"], rows),
            _markdown(["goal", "aim", "measured"], goals),
            f"{results['size'] / 1e6:.0f} MB of float32 weights. " + _conditions(results),
            "Versions: " + _versions(results["versions"]) + ".",
        )
    )


def tabulate_weights(results: dict[str, Any]) -> str:
    downloads: list[dict[str, Any]] = results["downloads"]

    def of(program: str, key: str) -> list[float]:
        return [each[key] for each in downloads if each["program"] == program]

    programs = {each["program"] for each in downloads}
    names = sorted(programs, key=lambda name: median(of(name, "seconds")))
    keys = {"seconds": 2, "cpu": 2, "peak_mb": 0}
    rows = [
        [
            name,
            *(_spread(of(name, key), digits) for key, digits in keys.items()),
            f"{results['size'] / 1e6 / median(of(name, 'seconds')):.0f}",
        ]
        for name in names
    ]
    ours, shell, hub = "hatch-mar", "curl and sha256sum", "huggingface_hub"
    speed = {name: 1 / median(of(name, "seconds")) for name in (ours, shell, hub)}
    goals = [
        ["speed, of curl's and sha256sum's", "at least 0.7", f"{speed[ours] / speed[shell]:.2f}"],
        ["speed, of huggingface_hub's", "at least 1", f"{speed[ours] / speed[hub]:.2f}"],
        ["memory, MB", "below 100", f"{max(of(ours, 'peak_mb')):.0f}"],
    ]
    return "\n\n".join(
        (
            _markdown(["program", "seconds", "CPU seconds", "peak MB", "MB/s"], rows),
            _markdown(["goal", "aim", "measured"], goals),
            f"{results['size'] / 1e6:.0f} MB of random bytes. " + _conditions(results),
            "Versions: " + _versions(results["versions"]) + ".",
        )
    )


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "echo": tabulate_echo,
    "start": tabulate_start,
    "ready": tabulate_ready,
    "warm-start": tabulate_warm_start,
    "weights": tabulate_weights,
    "packaging": tabulate_packaging,
    "hook": tabulate_hook,
}


def _values(points: Iterable[dict[str, Any]], peer: str, key: str, count: int) -> list[float]:
    return [p[key] for p in points if p["peer"] == peer and p["connections"] == count]


def _rate(points: Sequence[dict[str, Any]], peer: str) -> float:
    most = max(point["connections"] for point in points)
    return median(_values(points, peer, "rate", most))


def _cells(points: Sequence[dict[str, Any]], peer: str, counts: Sequence[int]) -> list[str]:
    cells = []
    for count in counts:
        p50, p99 = (median(_values(points, peer, key, count)) for key in ("p50", "p99"))
        cells += [_spread(_values(points, peer, "rate", count), 0), f"{p50:.2f} / {p99:.2f}"]
    return cells


def _costs(points: Sequence[dict[str, Any]], peer: str) -> list[str]:
    most = max(point["connections"] for point in points)
    return [f"{median(_values(points, peer, key, most)):.0f}" for key in ("cpu_us", "pss")]


def _goals(points: Sequence[dict[str, Any]]) -> str:
    """Return the promised ratios, as far as the peers they speak of were measured."""
    measured = {point["peer"] for point in points}
    most, least = (pick(point["connections"] for point in points) for pick in (max, min))

    def of(peer: str, key: str, count: int = most) -> float:
        return median(_values(points, peer, key, count))

    rows = []
    if {OURS, *TORCHSERVES} <= measured:
        better = max(of(peer, "rate") for peer in TORCHSERVES)
        ratio = of(OURS, "rate") / better
        rows.append([f"throughput, {most}: the better torchserve's", "at least 10", f"{ratio:.1f}"])
    if {OURS, MOSEC} <= measured:
        ratio = of(OURS, "rate") / of(MOSEC, "rate")
        rows.append([f"throughput, {most}: mosec's", "at least 2.5", f"{ratio:.1f}"])
        tail = of(OURS, "p99") / of(MOSEC, "p99")
        rows.append([f"p99, {most}: mosec's", "below 1", f"{tail:.2f}"])
    if {OURS, CEILING} <= measured:
        ratio = of(OURS, "p50", least) / of(CEILING, "p50", least)
        rows.append([f"p50, {least}: the bare protocol's", "at most 3", f"{ratio:.2f}"])
    return _markdown(["hatch-mar, times", "aim", "measured"], rows) if rows else ""


def _conditions(results: dict[str, Any]) -> str:
    machine = results["machine"]
    text = f"{results['rounds']} rounds"
    if "points" in results:
        foreign = [point["foreign"] for point in results["points"]]
        text += f" of {results['seconds']} s a point; other work kept {median(foreign):.2f} cores"
        text += f" busy, at most {max(foreign):.2f}"
    cores = f"{machine['cores']} cores of {machine['processor']}"
    return f"{text}. {cores}, {machine['system']}, Python {machine['python']}."


def _versions(versions: dict[str, dict[str, str]]) -> str:
    packages = {name: number for of_peer in versions.values() for name, number in of_peer.items()}
    return ", ".join(f"{name} {number}" for name, number in sorted(packages.items()))


def _spread(values: Sequence[float], digits: int) -> str:
    low, high = (f"{pick(values):,.{digits}f}" for pick in (min, max))
    return f"{median(values):,.{digits}f} [{low}-{high}]"


def _markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---", *(["--:"] * (len(header) - 1))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
