"""Run every check of the project, from a checkout and Python 3.11 alone.

    python3 tests/run.py              the everyday suite
    python3 tests/run.py --all        also the slow ones; only for want of a GPU may a test skip
    python3 tests/run.py tests/archive -k seal        only pytest, with these arguments

It makes an environment in `.work/tests`, installs what is missing and, where it may, the programs
that the suite runs: a Java runtime for TorchServe, git, and a C++ compiler for compiled models.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.support.environment import ROOT, WORK, apt_install, make_environment, pip, say

PROGRAMS = {
    "java": "default-jre-headless",
    "git": "git",
    "g++": "g++",
    "javac": "default-jdk-headless",
}
"""What the suite runs besides Python, and the Debian package of each."""
CHECKS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy",),
    ("mkdocs", "build", "--strict", "--quiet", "--site-dir", str(WORK / "site")),
)


def main(arguments: list[str]) -> int:
    """Run the checks; return 0 if all pass."""
    everything = "--all" in arguments
    chosen = [argument for argument in arguments if argument != "--all"]
    python = install()
    missing = [package for program, package in PROGRAMS.items() if shutil.which(program) is None]
    if missing and not apt_install(*missing):
        say(f"some tests will fail for want of: apt-get install {' '.join(missing)}")
    failed = [] if chosen else [" ".join(check) for check in CHECKS if not passes(python, check)]
    if not run_pytest(python, chosen, everything=everything):
        failed.append("pytest")
    for name in failed:
        say(f"FAILED: {name}")
    return bool(failed)


def install() -> Path:
    """Return the Python of an environment with this checkout and its dev requirements."""
    environment = WORK / "tests"
    python = make_environment(environment)
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes()).hexdigest()
    stamp = environment / "installed"
    if not stamp.exists() or stamp.read_text(encoding="utf-8") != wanted:
        say("installing the dev requirements")
        pip(python, "install", "--editable", ".[serve,torch,onnx]", "--group", "dev")
        stamp.write_text(wanted, encoding="utf-8")
    return python


def passes(python: Path, check: tuple[str, ...]) -> bool:
    """Run one check, a program of the environment, and tell whether it passed."""
    say(" ".join(check))
    return subprocess.run([python, "-m", *check], check=False, cwd=ROOT).returncode == 0


def run_pytest(python: Path, arguments: list[str], *, everything: bool) -> bool:
    """Tell whether the suite passed; where `everything` is asked for, no test may be missing."""
    report = WORK / "junit.xml"
    report.unlink(missing_ok=True)
    options = ["--numprocesses=2", "--dist=loadscope", f"--junit-xml={report}"]
    options += [] if everything else ["-m", "not slow"]
    passed = passes(python, ("pytest", *options, *arguments))
    missing = unexcused_skips(report) if everything and report.exists() else []
    for line in missing:
        say(f"skipped: {line}")
    return passed and not missing


def unexcused_skips(report: Path) -> list[str]:
    """Return a line for each test that was skipped for want of anything but a GPU."""
    lines = []
    for case in ET.parse(report).iter("testcase"):
        for skip in case.iter("skipped"):
            reason = skip.get("message", "")
            if reason == "collection skipped":  # a whole module: pytest puts its reason elsewhere
                reason = (skip.text or "").rpartition("Skipped: ")[2]
            if skip.get("type") != "pytest.xfail" and "GPU" not in reason.upper():
                lines.append(f"{case.get('classname')}::{case.get('name')}: {reason}")
    return lines


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
