"""`hatch-mar pull`: the weights that models only name, into the cache, before anybody serves."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.fetching import fetch_told, render_seconds
from hatch_mar.cli.output import columns, emit, json_option, say, told_as_json, visible
from hatch_mar.cli.subject import TARGET, find_subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hatch_mar.weights.cache import Cache
    from hatch_mar.weights.reference import Reference


@dataclass(slots=True, kw_only=True)
class _Wanted:
    """One file that a model names, and what became of it."""

    model: str
    """`name version`."""
    reference: Reference
    path: Path
    present: bool
    """Whether it was there, and right, before."""
    error: str = ""
    seconds: float = 0.0


@click.command()
@click.argument("targets", nargs=-1, required=True, type=TARGET, metavar="TARGET...")
@click.option(
    "--to",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Fill this cache directory instead of this machine's own, to carry it elsewhere.",
)
@json_option
def command(targets: tuple[str, ...], directory: Path | None, *, as_json: bool) -> None:
    """Fetch the weights that models only name into the cache, so that serving needs no network.

    TARGET is an archive, a wheel, a directory, the name of an installed model, or a project. What
    is in the cache already is not fetched again. With HATCH_MAR_OFFLINE=1 nothing is fetched: what
    is missing is listed, all of it.
    """
    from hatch_mar.weights.cache import Cache  # noqa: PLC0415 - see hatch_mar.cli

    with told_as_json(targets[0], as_json=as_json):
        cache = Cache(None if directory is None else directory.absolute())
        names, wanted = _list_wanted(targets, cache)
        _refuse_offline(wanted, cache)
        _pull(wanted, cache)
        if not as_json:
            for line in _render(names, wanted, cache):
                say(line)
        _complain(wanted)
    if as_json:
        emit({"directory": str(cache.directory), "files": [_describe(each) for each in wanted]})


def _list_wanted(targets: Sequence[str], cache: Cache) -> tuple[list[str], list[_Wanted]]:
    """Return the names of all models, and every file that they name."""
    names: list[str] = []
    wanted: list[_Wanted] = []
    present: dict[str, bool] = {}
    for target in targets:
        with find_subject(target).open() as archive:
            manifest, seal = archive.manifest, archive.seal
        name = " ".join(filter(None, (manifest.model_name, manifest.model_version)))
        names.append(name)
        for reference in seal.references if seal else ():
            if reference.sha256 not in present:
                present[reference.sha256] = cache.confirm(reference)
            path, there = cache.path_of(reference.sha256), present[reference.sha256]
            wanted.append(_Wanted(model=name, reference=reference, path=path, present=there))
    return names, wanted


def _refuse_offline(wanted: Iterable[_Wanted], cache: Cache) -> None:
    """Raise one error for all that is missing and that only a network has.

    Raises:
        OfflineError: it is forbidden to fetch it.
    """
    from hatch_mar.errors import OfflineError  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.weights.fetch import OFFLINE_VARIABLE, is_offline  # noqa: PLC0415
    from hatch_mar.weights.uri import is_local, redact  # noqa: PLC0415

    if not is_offline(os.environ):
        return
    rows = {
        each.reference.sha256: (
            f"{visible(each.model)}: {visible(each.reference.target)}",
            f"from {visible(redact(each.reference.source))}",
            f"belongs at {each.path}",
        )
        for each in wanted
        if not each.present and not any(map(is_local, _sources(_nearer(each.reference, cache))))
    }
    if rows:
        count, them = ("1 file is", "it") if len(rows) == 1 else (f"{len(rows)} files are", "them")
        head = f"{count} not in {cache.directory}, and {OFFLINE_VARIABLE} forbids to fetch {them}:"
        remedy = f"unset {OFFLINE_VARIABLE}, or copy the cache of a machine that has them"
        raise OfflineError("\n".join([head, *columns(rows.values()), remedy]))


def _sources(reference: Reference) -> tuple[str, ...]:
    return reference.source, *reference.mirrors


def _nearer(reference: Reference, cache: Cache) -> Reference:
    """Put this machine's own cache before the sources, where another directory is to be filled."""
    from hatch_mar.weights.cache import find_cached  # noqa: PLC0415 - see hatch_mar.cli

    path = find_cached(reference)
    if path is None or path == cache.path_of(reference.sha256):
        return reference
    return replace(reference, source=str(path), mirrors=_sources(reference))


def _pull(wanted: Iterable[_Wanted], cache: Cache) -> None:
    """Fetch one file after the other; what cannot be had does not keep the others from it."""
    from hatch_mar.errors import WeightsError  # noqa: PLC0415 - see hatch_mar.cli

    failed: dict[str, str] = {}
    for each in wanted:
        sha256 = each.reference.sha256
        started = time.monotonic()
        if sha256 in failed:
            each.error = failed[sha256]
        elif not each.present:
            try:
                fetch_told(_nearer(each.reference, cache), cache)
            except WeightsError as error:
                failed[sha256] = each.error = str(error)
                continue
        each.seconds = time.monotonic() - started
        cache.ledger.note_use(sha256, each.model)


def _complain(wanted: Iterable[_Wanted]) -> None:
    """Raise one error for all that could not be fetched.

    Raises:
        WeightsError: something could not.
    """
    from hatch_mar.errors import WeightsError  # noqa: PLC0415 - see hatch_mar.cli

    errors = list(dict.fromkeys(each.error for each in wanted if each.error))
    if len(errors) == 1:
        raise WeightsError(errors[0])
    if errors:
        head = f"{len(errors)} files could not be fetched"
        raise WeightsError("\n".join([head, *(f"  {error}" for error in errors)]))


def _render(names: Sequence[str], wanted: Sequence[_Wanted], cache: Cache) -> Iterator[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    for name in dict.fromkeys(names):
        files = [each for each in wanted if each.model == name]
        yield (
            f"{visible(name)}:"
            if files
            else f"{visible(name)}: names no weights, all of them are in it"
        )
        yield from columns(
            (
                visible(each.reference.target),
                render_size(each.path.stat().st_size) if not each.error else "",
                _tell(each),
            )
            for each in files
        )
    whole = {each.path: each.path.stat().st_size for each in wanted if not each.error}
    if whole:
        count = f"{len(whole)} file{'s' if len(whole) > 1 else ''}"
        yield f"{count}, {render_size(sum(whole.values()))}, in {cache.directory}"


def _tell(each: _Wanted) -> str:
    if each.error:
        return "could not be fetched"
    if each.present:
        return "was there"
    return "fetched" if each.seconds < 1 else f"fetched in {render_seconds(each.seconds)}"


def _describe(each: _Wanted) -> dict[str, Any]:
    """Return what became of one file, as JSON holds it."""
    from hatch_mar.weights.uri import redact  # noqa: PLC0415 - see hatch_mar.cli

    return {
        "model": each.model,
        "target": each.reference.target,
        "source": redact(each.reference.source),
        "sha256": each.reference.sha256,
        "size": each.path.stat().st_size,
        "path": str(each.path),
        "state": "present" if each.present else "fetched",
    }
