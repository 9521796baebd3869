"""`hatch-mar serve` and `serve-<name>`: a runner in the foreground."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hatch_mar.cli import orderly_exit
from hatch_mar.cli.options import (
    PORT,
    ServeOptions,
    list_addresses,
    read_patterns,
    serving_options,
    with_grpc,
)
from hatch_mar.cli.subject import TARGET
from hatch_mar.cli.targets import Target, find_targets
from hatch_mar.errors import HatchMarError

if TYPE_CHECKING:
    from hatch_mar.api.rpc.server import Purpose


@click.command()
@click.argument("models", nargs=-1, type=TARGET, metavar="PATH_OR_NAME...")
@click.option(
    "--model-store",
    type=click.Path(path_type=Path),
    help="Directory of archives, for --models.",
)
@click.option(
    "--models",
    "stored",
    multiple=True,
    metavar="all|[NAME=]FILE",
    help="Which archives of the model store to serve.",
)
@click.option(
    "--enable-model-api",
    is_flag=True,
    help="Let models be registered and unregistered through the management API.",
)
@click.option(
    "--allowed-url",
    "allowed_urls",
    multiple=True,
    metavar="REGEX",
    callback=read_patterns,
    help="URLs that such models may be fetched from; none unless given.",
)
@click.option("--grpc-port", type=PORT, help="Port of gRPC's inference service; none unless given.")
@click.option("--grpc-management-port", type=PORT, help="Port of gRPC's management service.")
@serving_options
def command(
    models: tuple[str, ...],
    model_store: Path | None,
    stored: tuple[str, ...],
    grpc_port: int | None,
    grpc_management_port: int | None,
    **options: Any,  # noqa: ANN401 - the fields of ServeOptions
) -> None:
    """Serve models: .mar files, .tar.gz, directories, wheels, or installed models by name.

    NAME=PATH serves one under another name. TorchServe's three APIs get three ports: --port, and
    the two after it.
    """
    opened = options["enable_model_api"] and not (models or stored)
    targets = [] if opened else find_targets(models, store=model_store, stored=stored)
    chosen = ServeOptions(model_store=model_store, **options)
    ports: dict[Purpose, int | None] = {
        "inference": grpc_port,
        "management": grpc_management_port,
    }
    _serve(targets, with_grpc(chosen, ports), separate=True)


def serve_package(package: str) -> NoReturn:
    """Run `serve-<name>`: serve the model that the installed `package` carries, and exit.

    One port answers inference, health and metrics; management is there only if asked for.
    """

    @click.command(context_settings={"help_option_names": ["-h", "--help"]})
    @serving_options
    def program(**options: Any) -> None:  # noqa: ANN401 - the fields of ServeOptions
        """Serve this model: inference, health and metrics on one port."""
        target = Target(what=package)
        _serve([target], ServeOptions(**options), separate=False)

    with orderly_exit():
        program.main()
    raise SystemExit(0)


def _serve(targets: list[Target], options: ServeOptions, *, separate: bool) -> None:
    if find_spec("uvicorn") is None:
        raise HatchMarError("serving needs the extra `serve`: pip install 'hatch-mar[serve]'")
    import asyncio  # noqa: PLC0415 - see hatch_mar.cli

    from hatch_mar.api.listeners import bind  # noqa: PLC0415 - the same
    from hatch_mar.cli.runner import Runner  # noqa: PLC0415 - the same

    addresses = list_addresses(options, os.environ, separate=separate)
    # Taken before anything is loaded: a port that somebody else has is known at once.
    sockets = [bind(address) for address in addresses]
    raise SystemExit(asyncio.run(Runner(targets, options, sockets).run()))
