"""The verdict of `hatch-mar check`: what is wrong with a model, and who could serve it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hatch_mar.cli.output import columns, visible
from hatch_mar.errors import ArchiveError, Problem, ProblemsError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.archive.read import Archive
    from hatch_mar.cli.subject import Subject
    from hatch_mar.cli.trial import Answer, Trial
    from hatch_mar.project.proof import OurServer, Proof
    from hatch_mar.project.spec import MarSpec

SERVERS = {"hatch-mar": "hatch-mar", "torchserve": "TorchServe 0.12"}
"""The servers that there is a verdict about, and how they are called to a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of a model without running it."""

    name: str
    version: str
    kind: str
    """`project`, or what kind of archive it is."""
    details: dict[str, Any]
    """What it is made of, as `--json` says it."""
    problems: tuple[Problem, ...] = ()
    obstacles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Why a server, a key of `SERVERS`, cannot serve it; nothing if it can."""
    notes: tuple[str, ...] = ()

    def failures(self, wanted: tuple[str, ...]) -> list[Problem]:
        """Return what is wrong: its problems, or why the `wanted` servers cannot serve it.

        With no server wanted it is enough that one of them can.
        """
        if self.problems:
            return list(self.problems)
        judged = wanted
        if not wanted and all(self.obstacles.values()):
            judged = tuple(SERVERS)
        found = [
            Problem(SERVERS[server], "", reason)
            for server in judged
            for reason in self.obstacles[server]
        ]
        return list(dict.fromkeys(found))

    @property
    def exit_code(self) -> int:
        """The exit code if something is wrong."""
        return ProblemsError.exit_code if self.kind == "project" else ArchiveError.exit_code

    def as_dict(self) -> dict[str, Any]:
        """Return the form in which `--json` prints it."""
        return {
            "name": self.name,
            "version": self.version,
            "kind": self.kind,
            **self.details,
            "servers": {
                server: {"serves": not self.problems and not reasons, "obstacles": list(reasons)}
                for server, reasons in self.obstacles.items()
            },
            "notes": list(self.notes),
        }


def judge(subject: Subject, archive: Archive, spec: MarSpec | None) -> Verdict:
    """Judge `archive`; of a project, whose `spec` was right, it is the one a build would make."""
    from hatch_mar.project.proof import prove  # noqa: PLC0415 - see hatch_mar.cli

    proof = prove(archive, our_server())
    notes, stock = proof.notes, proof.not_stock
    if spec is not None:
        # Of what the author wrote the project's own reading knows more.
        notes, stock = [note for note in spec.notes if note not in spec.stock], list(spec.stock)
    return Verdict(
        name=archive.manifest.model_name,
        version=archive.manifest.model_version or "1.0",
        kind=archive.kind,
        details=_details(subject, archive, spec, proof),
        problems=tuple(proof.problems),
        obstacles={
            "hatch-mar": tuple(dict.fromkeys(proof.not_here)),
            "torchserve": tuple(dict.fromkeys(stock)),
        },
        notes=tuple(dict.fromkeys(notes)),
    )


def our_server() -> OurServer:
    """Return what our own server has, for the proof."""
    from importlib.util import find_spec  # noqa: PLC0415 - see hatch_mar.cli

    from hatch_mar.model.entrypoint import DEFAULT_HANDLERS  # noqa: PLC0415
    from hatch_mar.project.proof import OurServer  # noqa: PLC0415

    def has_module(name: str) -> bool:
        try:
            return find_spec(f"hatch_mar.{name}") is not None
        except ModuleNotFoundError:  # not even the package that it would be in
            return False

    return OurServer(default_handlers=frozenset(DEFAULT_HANDLERS), has_module=has_module)


def _details(
    subject: Subject, archive: Archive, spec: MarSpec | None, proof: Proof
) -> dict[str, Any]:
    names = archive.names()
    seal = archive.seal
    found = proof.handler.found if proof.handler else None
    return {
        "target": subject.what,
        "handler": archive.manifest.handler,
        "found": spec.handler.found if spec else found,
        "runtime": spec.runtime if spec else proof.runtime,
        "reason": spec.runtime_reason if spec else None,
        "members": len(names),
        "size": sum(map(archive.size, names)),
        "sealed": spec is None and seal is not None,
        "references": [each.target for each in seal.references] if seal else [],
        "examples": len(seal.examples) if seal else 0,
    }


def _facts(verdict: Verdict) -> Iterator[tuple[str, str]]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    details = verdict.details
    if verdict.kind != "project":
        yield "archive", f"{details['target']}  ({verdict.kind})"
    for key, why in (("handler", "found"), ("runtime", "reason")):
        yield key, (details[key] or "unknown") + (f"  ({details[why]})" if details[why] else "")
    seal = "" if verdict.kind == "project" else ", sealed" if details["sealed"] else ", not sealed"
    yield "members", f"{details['members']}, {render_size(details['size'])}{seal}"
    if details["references"]:
        yield "by reference", ", ".join(details["references"])
    if details["examples"]:
        yield "golden examples", str(details["examples"])


def render(verdict: Verdict, trial: Trial | None = None) -> Iterator[str]:
    """Yield the verdict for a person, and what became of the model if it was loaded.

    Problems are told elsewhere.
    """
    wrong = trial is not None and any(answer.fatal for answer in trial.answers)
    word = "answers otherwise than recorded" if wrong else "nothing is wrong"
    yield f"{visible(verdict.name)} {visible(verdict.version)}: {word}"
    yield ""
    rows = [(key, visible(value)) for key, value in _facts(verdict)]
    for server, reasons in verdict.obstacles.items():
        rows.append((SERVERS[server], "does not serve it as it is:" if reasons else "serves it"))
        rows += [("", f"- {visible(reason)}") for reason in reasons]
    yield from columns(rows)
    if verdict.notes:
        yield ""
        yield "  notes"
        yield from (f"    {visible(note)}" for note in verdict.notes)
    if trial is not None:
        yield from _render_trial(trial)


def _render_trial(trial: Trial) -> Iterator[str]:
    """Yield what became of the model when it was loaded."""
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    yield ""
    yield (
        f"  loaded on {trial.device} in {trial.seconds:.1f} s; "
        f"its worker holds {render_size(trial.memory)}"
    )
    if trial.answers:
        yield ""
        head = ("example", "answer", "largest difference", "tolerance", "")
        rows = [head, *(_answer_row(answer) for answer in trial.answers)]
        yield from columns(rows, right=(2,))


def _answer_row(answer: Answer) -> tuple[str, ...]:
    example = answer.example
    word = "passed" if answer.passed else "failed" if answer.failure else "differs"
    if answer.largest is not None:
        largest = f"{answer.largest:.2g}"
    else:
        largest = "none" if answer.passed else "-"
    why = answer.failure or answer.difference or ""
    warned = "only warned of: " if why and example.policy == "warn" else ""
    return (
        visible(example.input.rpartition("/")[2]),
        word,
        largest,
        f"{example.atol:g} + {example.rtol:g}",
        visible(f"{warned}{why}"),
    )


def describe_trial(trial: Trial) -> dict[str, Any]:
    """Return the form in which `--json` prints a trial."""
    return {
        "device": trial.device,
        "seconds": round(trial.seconds, 3),
        "memory": trial.memory,
        "examples": [
            {
                **answer.example.as_dict(),
                "passed": answer.passed,
                "difference": answer.failure or answer.difference,
                "largestDifference": answer.largest,
            }
            for answer in trial.answers
        ],
    }


def as_json(problems: list[Problem]) -> list[dict[str, str]]:
    """Return problems as every command prints them."""
    return [asdict(problem) for problem in problems]
