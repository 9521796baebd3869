"""The tables of what building and downloading take."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.report.markdown import conditions, markdown, spread, versions


def tabulate_packaging(results: dict[str, Any]) -> str:
    runs: list[dict[str, Any]] = results["runs"]

    def values(what: str, key: str) -> list[float]:
        return [run[key] for run in runs if run["what"] == what]

    def of(what: str, key: str = "seconds") -> float:
        return median(values(what, key))

    names = list(dict.fromkeys(run["what"] for run in sorted(runs, key=lambda run: run["round"])))
    keys = {"seconds": 2, "cpu": 2, "peak_mb": 0, "temporary_mb": 0, "output_mb": 1}
    rows = [
        [name, *(spread(values(name, key), digits) for key, digits in keys.items())]
        for name in names
    ]
    ours, wheel = "hatch-mar, .mar", "hatch-mar, wheel"
    peak, temporary = (
        max(of(name, key) for name in (ours, wheel)) for key in ("peak_mb", "temporary_mb")
    )
    goals: list[list[Any]] = [
        [".mar: of cp and sha256sum", "at most 2.5", of(ours) / of("cp and sha256sum")],
        [".mar: torch-model-archiver's", "at least 10", of("torch-model-archiver") / of(ours)],
        ["wheel: hatchling's", "at least 10", of("hatchling, wheel") / of(wheel)],
        ["memory of both, MB", "below 100", peak],
        ["temporary files of both, MB", f"far below {megabytes(results)}", temporary],
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
            markdown(header, rows),
            markdown(
                ["goal", "aim", "measured"], [[goal, aim, f"{got:.2f}"] for goal, aim, got in goals]
            ),
            f"{megabytes(results)} MB of float32 weights, half as many of bfloat16. "
            + conditions(results),
            "Versions: " + versions(results["versions"]) + ".",
        )
    )


def tabulate_hook(results: dict[str, Any]) -> str:
    runs: list[dict[str, Any]] = results["runs"]
    names = list(dict.fromkeys(run["what"] for run in runs if not run["round"]))
    cpu = {name: [run["cpu"] for run in runs if run["what"] == name] for name in names}
    least = median(cpu[names[0]])
    rows = [[name, spread(cpu[name], 2), f"{median(cpu[name]) / least:.2f}"] for name in names]
    return "\n\n".join(
        (
            markdown(["`hatch build -t wheel`", "CPU seconds", "of the first"], rows),
            conditions(results),
            "Versions: " + versions(results["versions"]) + ".",
        )
    )


def megabytes(results: dict[str, Any]) -> str:
    return f"{results['sizes']['float32'] / 1e6:.0f}"


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
            *(spread(of(name, key), digits) for key, digits in keys.items()),
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
            markdown(["program", "seconds", "CPU seconds", "peak MB", "MB/s"], rows),
            markdown(["goal", "aim", "measured"], goals),
            f"{results['size'] / 1e6:.0f} MB of random bytes. " + conditions(results),
            "Versions: " + versions(results["versions"]) + ".",
        )
    )
