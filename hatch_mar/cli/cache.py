"""`hatch-mar cache`: what was fetched, whether it still is right, and room when it is needed."""

from __future__ import annotations

import re
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.fetching import render_seconds
from hatch_mar.cli.output import (
    columns,
    emit,
    json_option,
    progress,
    say,
    shorten,
    told_as_json,
    visible,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatch_mar.weights.cache import Cache
    from hatch_mar.weights.upkeep import Checked, Item, Pruned

_AGE = re.compile(r"(?P<number>\d+(?:\.\d+)?) ?(?P<unit>min|[smhdw])")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_SECOND_SIZE = 1
"""The column of sizes, which are flush right."""


def read_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Return the bytes that `50GB` or `1.5 GiB` stand for.

    Raises:
        click.BadParameter: it is no size.
    """
    from hatch_mar.project.table import parse_size  # noqa: PLC0415 - see hatch_mar.cli

    try:
        return None if value is None else parse_size(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def read_age(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """Return the seconds that `30d`, `12h` or `2w` stand for.

    Raises:
        click.BadParameter: it is no age.
    """
    if value is None:
        return None
    found = _AGE.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"'{value}' is not an age; write it like 30d or 12h", ctx, param)
    return float(found["number"]) * _UNITS[found["unit"]]


@click.group()
def command() -> None:
    """Look after the cache: $HATCH_MAR_CACHE_DIR, or the user's cache directory.

    It holds weights that were fetched, and what was compiled for this machine's devices.
    """


@command.command("path")
@json_option
def path_command(*, as_json: bool) -> None:
    """Print the directory of the cache, which need not be there yet."""
    with told_as_json("", as_json=as_json):
        directory = str(_open_cache().directory)
    if as_json:
        emit({"directory": directory})
    else:
        say(directory)


@command.command("list")
@json_option
def list_command(*, as_json: bool) -> None:
    """List the files in the cache, the last used one first, and which models used them."""
    from hatch_mar.weights.upkeep import list_items  # noqa: PLC0415 - see hatch_mar.cli

    with told_as_json("", as_json=as_json):
        cache = _open_cache()
        items = list_items(cache)
    if as_json:
        total = sum(item.size for item in items)
        files = [_describe(item) for item in items]
        emit({"directory": str(cache.directory), "size": total, "files": files})
        return
    for line in _render_list(items, cache):
        say(line)


@command.command("verify")
@click.option("--fix", is_flag=True, help="Remove what is damaged; the next fetch brings it back.")
@json_option
def verify_command(*, fix: bool, as_json: bool) -> None:
    """Hash every file again, and say which are not what was locked.

    What is damaged is not used any more, also without --fix. Exits with 4 if something is and stays
    damaged.
    """
    from hatch_mar.errors import WeightsError  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.weights.upkeep import list_items, verify_item  # noqa: PLC0415

    with told_as_json("", as_json=as_json):
        cache = _open_cache()
        items = [item for item in list_items(cache) if item.whole]
        with progress("verifying", sum(item.size for item in items)) as advance:
            checked = [verify_item(cache, item, fix=fix, advance=advance) for item in items]
    left = [each for each in checked if each.state != "right" and not each.removed]
    if as_json:
        emit({"directory": str(cache.directory), "files": [_describe_check(c) for c in checked]})
    else:
        for line in _render_checks(checked, cache):
            say(line)
    sys.exit(WeightsError.exit_code if left else 0)


@command.command("prune")
@click.option(
    "--max-size",
    callback=read_size,
    metavar="SIZE",
    help="Keep this much at most, such as 50GB; 0 keeps nothing.",
)
@click.option(
    "--older-than",
    callback=read_age,
    metavar="AGE",
    help="Remove what was not used for so long: 30d, 12h.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go, and remove nothing.")
@json_option
def prune_command(
    max_size: int | None, older_than: float | None, *, dry_run: bool, as_json: bool
) -> None:
    """Remove files that nobody has used for the longest time, and what is left of downloads.

    What is being fetched or served stays. What is removed is fetched again when it is needed.
    """
    if max_size is None and older_than is None:
        raise click.UsageError("say what may go: --max-size 50GB, --older-than 30d, or both")
    from hatch_mar.weights.upkeep import prune  # noqa: PLC0415 - see hatch_mar.cli

    with told_as_json("", as_json=as_json):
        cache = _open_cache()
        pruned = list(
            prune(
                cache,
                now=time.time(),
                max_size=max_size,
                older_than=older_than,
                dry_run=dry_run,
            )
        )
    if as_json:
        files = [{**_describe(each.item), "fate": each.fate} for each in pruned]
        freed = sum(each.item.size for each in pruned if each.fate == "removed")
        emit(
            {"directory": str(cache.directory), "dry_run": dry_run, "freed": freed, "files": files}
        )
        return
    for line in _render_pruned(pruned, dry_run=dry_run):
        say(line)


def _open_cache() -> Cache:
    from hatch_mar.weights.cache import Cache  # noqa: PLC0415 - see hatch_mar.cli

    return Cache()


def _describe(item: Item) -> dict[str, Any]:
    """Return one item as JSON holds it; times are seconds since the epoch."""
    return asdict(item)


def _describe_check(checked: Checked) -> dict[str, Any]:
    item = checked.item
    return {
        "key": item.key,
        "path": item.path,
        "size": item.size,
        "models": item.models,
        "state": checked.state,
        "found": checked.found,
        "removed": checked.removed,
    }


def _name(item: Item) -> str:
    if item.compiled:
        kind, _, name = item.key.partition("/")
        return f"{shorten(name)} ({kind})"
    return shorten(item.key) if item.whole else f"{shorten(item.key)} (part)"


def _render_list(items: Sequence[Item], cache: Cache) -> Iterator[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    now = time.time()
    if items:
        head = ("sha256", "size", "used", "age", "by")
        rows = [
            (
                _name(item),
                render_size(item.size),
                f"{_render_age(now - item.used)} ago",
                _render_age(now - item.since),
                visible(", ".join(item.models)),
            )
            for item in items
        ]
        yield from columns([head, *rows], indent="", right=[_SECOND_SIZE])
    total = render_size(sum(item.size for item in items))
    yield f"{_count(len(items))}, {total}, in {cache.directory}"


def _render_age(seconds: float) -> str:
    return render_seconds(max(0.0, seconds))


def _render_checks(checked: Sequence[Checked], cache: Cache) -> Iterator[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    for each in checked:
        if each.state == "right":
            continue
        users = f", used by {visible(', '.join(each.item.models))}" if each.item.models else ""
        found = f"has sha256 {each.found}" if each.state == "damaged" else each.found
        fate = "removed" if each.removed else "hatch-mar cache verify --fix removes it"
        yield f"{each.item.path}: {each.state}: {found}{users}; {fate}"
    wrong = sum(each.state != "right" for each in checked)
    size = render_size(sum(each.item.size for each in checked))
    verdict = f"{wrong} wrong" if wrong else "as locked"
    yield f"{_count(len(checked))}, {size}, in {cache.directory}: {verdict}"


def _render_pruned(pruned: Sequence[Pruned], *, dry_run: bool) -> Iterator[str]:
    from hatch_mar.weights.size import render_size  # noqa: PLC0415 - see hatch_mar.cli

    words = {
        "removed": "would be removed" if dry_run else "removed",
        "in use": "is in use, and stays",
        "not ours": "cannot be removed: not ours, or a read-only cache",
    }
    now = time.time()
    rows = [
        (
            _name(each.item),
            render_size(each.item.size),
            f"used {_render_age(now - each.item.used)} ago",
            words[each.fate],
        )
        for each in pruned
    ]
    yield from columns(rows, indent="", right=[_SECOND_SIZE])
    gone = [each.item.size for each in pruned if each.fate == "removed"]
    yield f"{_count(len(gone))}, {render_size(sum(gone))}, {words['removed']}"


def _count(number: int) -> str:
    return f"{number} file{'' if number == 1 else 's'}"
