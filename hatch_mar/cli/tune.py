"""`hatch-mar tune`: what batches of a model cost on this device, measured and kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.options import DeviceChoice, read_device
from hatch_mar.cli.output import columns, emit, json_option, say, told_as_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatch_mar.archive.read import Archive
    from hatch_mar.cli.subject import Subject
    from hatch_mar.cli.sweep import Measured
    from hatch_mar.model.protocol import Request

SIZES = (1, 2, 4, 8, 16, 32, 64)
WORTH = 0.9
"""The share of the attainable throughput below which a larger batchSize is suggested."""


def read_sizes(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, ...]:
    """Read `--sizes`: numbers with commas between them, in any order."""
    if value is None:
        return SIZES
    try:
        sizes = sorted({int(part) for part in value.split(",")})
    except ValueError:
        sizes = []
    if not sizes or sizes[0] < 1:
        raise click.BadParameter(f"{value!r} is no list of sizes; write, for example, 1,4,16")
    return tuple(sizes)


@click.command()
@click.argument("target", default=".")
@click.option(
    "--input",
    "inputs",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    multiple=True,
    help="A request's body; may be given several times. Otherwise the golden examples are asked.",
)
@click.option("--content-type", default="", help="The content type of the inputs.")
@click.option(
    "--sizes",
    callback=read_sizes,
    help="Sizes of batches, such as 1,4,16. By default the powers of two up to 64.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    help="How long to ask batches of each size.",
)
@click.option(
    "--device",
    callback=read_device,
    default="auto",
    show_default=True,
    help="Where to load the model: cpu, gpu, auto, or the number of a GPU.",
)
@click.option("--dry-run", is_flag=True, help="Print what was measured, and keep nothing.")
@json_option
def command(target: str, device: DeviceChoice, **options: Any) -> None:  # noqa: ANN401 - click's
    """Measure what batches of TARGET cost on this device, and keep it for its runners.

    TARGET is a project, a .mar file, a directory, a wheel or an installed model; the current
    directory unless given. Its model is loaded in a worker process and asked batches of growing
    size. What comes of it is written next to it: tuning.json in a project, NAME.tuning.json beside
    an archive. A runner on a device of the same kind then knows how long requests will wait before
    it has seen any. To ship it with the model, name it among the extra files.
    """
    from hatch_mar.cli.subject import find_subject  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.cli.sweep import measure  # noqa: PLC0415

    as_json = options["as_json"]
    with told_as_json(target, as_json=as_json):
        subject = find_subject(target)
        requests = [_make_request(path, options["content_type"]) for path in options["inputs"]]
        with subject.open() as archive:
            _need_inputs(subject, archive, requests)
            measured = measure(
                archive,
                device=device,
                sizes=options["sizes"],
                seconds=options["seconds"],
                inputs=requests,
                told=lambda size: click.echo(f"hatch-mar: batches of {size}", err=True),
            )
            place = None if options["dry_run"] else _keep(subject, archive, measured)
        if as_json:
            emit(_as_json(measured, place))
        else:
            for line in _render(measured, place):
                say(line)


def _make_request(path: Path, content_type: str) -> Request:
    from hatch_mar.model.protocol import Part, Request  # noqa: PLC0415 - see hatch_mar.cli

    return Request(id="tune", headers=(), parts=[Part("body", content_type, path.read_bytes())])


def _need_inputs(subject: Subject, archive: Archive, requests: list[Request]) -> None:
    from hatch_mar.errors import TargetError  # noqa: PLC0415 - see hatch_mar.cli

    if not requests and not (archive.seal and archive.seal.examples):
        raise TargetError(
            f"{subject.what}: there is nothing to ask the model: it has no golden examples "
            "(tool.mar.examples); give a request's body with --input FILE"
        )


def _keep(subject: Subject, archive: Archive, measured: Measured) -> Path | None:
    """Write what was measured next to the model; return where."""
    from hatch_mar.errors import HatchMarError  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.serve.tuning import TUNING_NAME, add_tuning, place_beside  # noqa: PLC0415

    if measured.tuning is None:
        return None
    is_project = subject.kind == "project" and subject.path is not None
    place = archive.path / TUNING_NAME if is_project else place_beside(archive.path)
    try:
        add_tuning(place, measured.tuning)
    except OSError as error:
        raise HatchMarError(
            f"{place}: cannot be written: {error.strerror}; --dry-run prints what was measured"
        ) from error
    return place


def _as_json(measured: Measured, place: Path | None) -> dict[str, Any]:
    from hatch_mar.serve.batching.costs import KNEE  # noqa: PLC0415 - see hatch_mar.cli

    fit = measured.fit
    cost = fit.cost
    return {
        "device": measured.device,
        "batchSize": measured.batch_size,
        "batches": [sweep.as_dict() for sweep in measured.sweeps],
        "fixed": cost and cost.fixed,
        "perItem": cost and cost.per_item,
        "rSquared": fit.r_squared,
        "knee": cost and _as_size(cost.knee(KNEE)),
        "unknown": fit.unknown,
        "failure": measured.failure,
        "written": place,
        "problems": [],
    }


def _as_size(size: float) -> int | None:
    return math.ceil(size) if math.isfinite(size) else None


def _render(measured: Measured, place: Path | None) -> Iterator[str]:
    yield f"on {measured.device}:"
    rows = [
        (
            str(sweep.size),
            f"{sweep.seconds * 1000:.3f} ms",
            f"{sweep.size / sweep.seconds:,.0f}/s" if sweep.seconds else "",
            str(sweep.count),
        )
        for sweep in measured.sweeps
    ]
    yield from columns([("batch", "takes", "requests", "seen"), *rows], right=(0, 1, 2, 3))
    if measured.failure:
        yield f"no larger ones: {measured.failure}"
    yield from _conclude(measured)
    if place is not None:
        yield f"written to {place}"


def _conclude(measured: Measured) -> Iterator[str]:
    """Say what a batch costs, and what that means for `batchSize`."""
    cost, size = measured.fit.cost, measured.batch_size
    if cost is None:
        yield f"what a batch costs cannot be told: {measured.fit.unknown}"
        return
    fixed, per_item = cost.fixed * 1000, cost.per_item * 1000
    yield f"a batch costs {fixed:.3f} ms, and {per_item:.3f} ms for each request in it"
    knee, share = _as_size(cost.knee(WORTH)), cost.efficiency(size)
    if knee is None:
        yield "more requests in a batch cost nothing here: measure larger ones with --sizes"
    elif share < WORTH and knee > size:
        yield (
            f"batchSize {size} attains {share:.0%} of what is possible; {knee} would attain "
            f"{WORTH:.0%}, and a full batch then take {cost.of(knee) * 1000:.3f} ms"
        )
    else:
        yield f"batchSize {size} attains {share:.0%} of what is possible"
