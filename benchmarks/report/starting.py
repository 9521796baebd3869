"""The tables of what a start takes."""

from __future__ import annotations

from statistics import median
from typing import Any

from benchmarks.report.markdown import conditions, markdown, spread, versions


def tabulate_start(results: dict[str, Any]) -> str:
    starts: list[dict[str, Any]] = results["starts"]

    def of(what: str, key: str) -> list[float]:
        return [start[key] for start in starts if start["what"] == what]

    rows = [
        [
            what,
            spread(of(what, "seconds"), 2),
            spread(of(what, "pss"), 0),
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
            markdown(["program", "seconds to the first answer", "PSS MB", "processes"], rows),
            markdown(["goal", "aim", "measured"], goals),
            conditions(results),
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
            spread(seconds, 2),
            spread([each["cpu"] for each in together], 2),
        ],
        [
            "one alone",
            spread([each["seconds"] for each in alone], 2),
            spread([each["cpu"] for each in alone], 2),
        ],
    ]
    goal = [
        "time until all are ready, against the CPU seconds of each alone, on all cores",
        "at most 1.2",
        f"{median(seconds) / bound:.2f}",
    ]
    return "\n\n".join(
        (
            markdown(["started", "seconds until ready", "CPU seconds"], rows),
            markdown(["goal", "aim", "measured"], [goal]),
            conditions(results),
        )
    )


def tabulate_warm_start(results: dict[str, Any]) -> str:
    starts: list[dict[str, Any]] = results["starts"]

    def of(what: str, key: str) -> list[float]:
        return [start[key] for start in starts if start["what"] == what]

    server, script = "hatch-mar serve", "script"
    keys = {"seconds": 2, "pss": 0, "read_mb": 0}
    rows = [
        [what, *(spread(of(what, key), digits) for key, digits in keys.items())]
        for what in (script, server)
    ]
    ratio = median(of(server, "seconds")) / median(of(script, "seconds"))
    read = max(of(server, "read_mb"))
    goals = [
        ["time to the first answer, against the script", "at most 1.2", f"{ratio:.2f}"],
        [
            "read, not mapped, by all of the server, MB",
            f"far below {results['size'] / 1e6:.0f}",
            f"{read:.0f}",
        ],
    ]
    return "\n\n".join(
        (
            markdown(["program", "seconds to the first answer", "PSS MB", "read MB"], rows),
            markdown(["goal", "aim", "measured"], goals),
            f"{results['size'] / 1e6:.0f} MB of float32 weights. " + conditions(results),
            "Versions: " + versions(results["versions"]) + ".",
        )
    )
