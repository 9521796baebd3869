"""`hatch-mar explain-batching`: why a running model's batches have the size that they have."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from hatch_mar.cli.output import columns, emit, json_option, say, told_as_json, visible
from hatch_mar.errors import HatchMarError, TargetError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

URL = "http://127.0.0.1:8081"
"""Where `hatch-mar serve` manages models, unless it is told otherwise."""
_TIMEOUT = 30.0
_BAR = 40
"""Columns of the longest bar."""
_NOT_FOUND = 404
_TOKEN_VARIABLE = "HATCH_MAR_MANAGEMENT_TOKEN"  # noqa: S105 - the name of a variable
_PARTS = {"modelName", "limits", "seen", "batchSizes", "cost", "counts", "why", "suggestions"}
"""What tells the answer from that of some other server."""
_COUNTS = {
    "batches": "batches answered",
    "failedBatches": "batches failed",
    "halvedBatches": "batches run again in halves",
    "refusedQueueFull": "refused, the queue being full",
    "refusedNoIdleWorker": "refused, no worker being idle",
    "refusedWait": "refused, the wait being too long",
    "deadlinesMissed": "deadlines missed",
    "clientTimeouts": "clientTimeoutInMills exceeded",
    "clientsGone": "clients gone",
}


@click.command()
@click.argument("model")
@click.option("--version", "version", metavar="VERSION", help="Instead of the default version.")
@click.option(
    "--url",
    default=URL,
    show_default=True,
    metavar="URL",
    help="Where the runner's management API is.",
)
@json_option
def command(model: str, *, version: str | None, url: str, as_json: bool) -> None:
    """Ask a running runner why the batches of MODEL have the size that they have.

    Tells what was seen of the latest batches, what a batch costs, what follows from it, and which
    keys of model-config.yaml had better other values. Off loopback management asks for a token,
    which is taken from HATCH_MAR_MANAGEMENT_TOKEN.
    """
    with told_as_json(url, as_json=as_json):
        found = _ask(url, model, version)
    if as_json:
        emit(found)
    else:
        for line in render(found):
            say(visible(line))


def _ask(url: str, model: str, version: str | None) -> dict[str, Any]:
    """Return the management API's answer.

    Raises:
        TargetError: nobody is there, or the model is not.
        HatchMarError: the answer is another one than was asked for.
    """
    from http.client import HTTPException  # noqa: PLC0415 - see hatch_mar.cli
    from urllib.error import HTTPError  # noqa: PLC0415 - see hatch_mar.cli
    from urllib.request import Request, urlopen  # noqa: PLC0415 - see hatch_mar.cli

    if not url.startswith(("http://", "https://")):
        raise TargetError(f"{url!r} is no URL of a runner; write it as in {URL}")
    parts = [model, version, "batching"] if version else [model, "batching"]
    path = "/".join(quote(part, safe="") for part in parts)
    address = f"{url.rstrip('/')}/models/{path}"
    headers = _authorize()
    try:
        with urlopen(Request(address, headers=headers), timeout=_TIMEOUT) as answer:  # noqa: S310 - http, see above
            text = answer.read()
    except HTTPError as error:
        raise _refusal(address, error.code, error.read()) from error
    except (OSError, HTTPException, ValueError) as error:  # the last two: no URL, no HTTP
        reason = getattr(error, "reason", error)
        raise TargetError(
            f"{url}: no runner answers there ({visible(str(reason))}); "
            "name its management address with --url"
        ) from error
    found = _read_object(text)
    if not found.keys() >= _PARTS:
        raise HatchMarError(f"{address}: that is no management API of a hatch-mar runner")
    return found


def _authorize() -> dict[str, str]:
    """Return the header that management asks for off loopback.

    Raises:
        HatchMarError: the token cannot be in a header; it is not shown.
    """
    token = os.environ.get(_TOKEN_VARIABLE, "")
    if not (token.isascii() and token.isprintable()):
        raise HatchMarError(
            f"{_TOKEN_VARIABLE}: holds a line break or another character that no header may hold; "
            "set it to the runner's token"
        )
    return {"Authorization": f"Bearer {token}"} if token else {}


def _refusal(address: str, status: int, text: bytes) -> HatchMarError:
    message = _read_object(text).get("message", f"status {status}")
    kind = TargetError if status == _NOT_FOUND else HatchMarError
    return kind(f"{address}: {visible(str(message))}")


def _read_object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def render(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that a person reads."""
    seen, limits = found["seen"], found["limits"]
    yield f"{found['modelName']} {found['modelVersion']}"
    keys = [f"{key}={value:g}" for key, value in limits.items() if value is not None]
    yield f"  {', '.join(keys)}"
    if seen["batches"]:
        yield ""
        yield (
            f"the latest {seen['batches']} batches: {seen['requests']} requests in "
            f"{seen['seconds']:g} s"
        )
        yield from columns(_list_seen(found))
    if found["batchSizes"]:
        yield ""
        yield "batch sizes since the start"
        yield from _draw(found["batchSizes"])
    told = [(text, str(found["counts"][key])) for key, text in _COUNTS.items()]
    told = [row for row in told if row[1] != "0"]
    if told:
        yield ""
        yield "counted since the start"
        yield from columns(told, right=(1,))
    yield from _list("why", found["why"])
    yield from _list("worth trying", [_advise(one) for one in found["suggestions"]])


def _list_seen(found: Mapping[str, Any]) -> Iterator[Sequence[str]]:
    seen, cost, throughput = found["seen"], found["cost"], found["throughput"]
    if seen["requestsPerSecond"] is not None:
        yield "requests", f"{seen['requestsPerSecond']:g} per second"
    yield "workers busy", f"{100 * seen['utilization']:.0f} % of the time"
    for key, name in (("queueTime", "queue"), ("computeTime", "compute"), ("latency", "latency")):
        times = seen[key]
        median, p99, mean = (f"{times[part]:g}" for part in ("median", "p99", "mean"))
        yield name, f"median {median} ms, p99 {p99} ms, mean {mean} ms"
    if found["predictedLatency"] is not None:
        yield "", f"mean predicted: at most {found['predictedLatency']:g} ms"
    if cost["fixed"] is None:
        yield "cost", "not known"
        return
    each = f"{cost['fixed']:g} ms a batch and {cost['perItem']:g} ms a request"
    yield "cost", f"{each}, {_tell(cost)}"
    yield "capacity", f"{throughput['capacity']:g} requests per second{_tell_share(throughput)}"
    knee = throughput["knee"]
    yield "knee", "none" if knee is None else f"batches of {knee} have 90 % of what is attainable"


def _tell(cost: Mapping[str, Any]) -> str:
    if cost["source"] == "given":
        return "as measured before"
    if cost["source"] == "remembered":
        return "of earlier batches, as the latest do not tell"
    sizes = f"{cost['smallest']} to {cost['largest']}"
    return f"from {cost['batches']} batches of {sizes} (R2 {cost['rSquared']:.3f})"


def _tell_share(throughput: Mapping[str, Any]) -> str:
    share = throughput["efficiency"]
    return "" if share is None else f", {100 * share:.0f} % of what is attainable"


def _draw(sizes: Mapping[str, int]) -> Iterator[str]:
    """Yield a bar for each size."""
    most, total = max(sizes.values()), sum(sizes.values())
    for size, count in sizes.items():
        bar = "#" * max(1, round(_BAR * count / most))
        yield f"  {size:>5}  {count:>8}  {100 * count / total:>3.0f} %  {bar}"


def _list(title: str, sentences: Sequence[str]) -> Iterator[str]:
    if sentences:
        yield ""
        yield title
        yield from (f"  - {sentence}" for sentence in sentences)


def _advise(suggestion: Mapping[str, Any]) -> str:
    key, value = suggestion["key"], suggestion["value"]
    return f"{'leave ' + key + ' out' if value is None else f'{key}={value}'}: {suggestion['why']}"
