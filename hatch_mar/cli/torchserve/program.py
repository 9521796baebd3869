"""The program `torchserve`, as scripts know it: its flags, its lines, its pid file."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from hatch_mar import __version__
from hatch_mar.cli import orderly_exit
from hatch_mar.cli.output import say
from hatch_mar.cli.torchserve.properties import Configuration, read_properties
from hatch_mar.cli.torchserve.snapshots import newest_snapshot, snapshot_directory
from hatch_mar.errors import HatchMarError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROGRAM = "torchserve"
MODULE = "hatch_mar.cli.torchserve.program"
TORCHSERVE_VERSION = "0.12.0"
"""Of the TorchServe that this program behaves as."""
CONFIG_VARIABLE = "TS_CONFIG_FILE"
_WITHOUT_EFFECT = {
    "log_config": "--log-config has no effect: it configures Log4j; logs are in LOG_LOCATION and "
    "METRICS_LOCATION, and on stdout",
    "plugins_path": "--plugins-path has no effect: there are no Java plugins here",
    "workflow_store": "--workflow-store has no effect: workflows are not served here",
    "cpp_log_config": "--cpp-log-config has no effect: there is no C++ backend here",
}


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program and exit."""
    with orderly_exit():
        sys.exit(_run(sys.argv[1:] if arguments is None else list(arguments)))


def _run(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.version:
        say(f"TorchServe Version is {TORCHSERVE_VERSION}")
        say(f"by hatch-mar {__version__}")
        return 0
    from hatch_mar.cli.torchserve.background import Background  # noqa: PLC0415 - see hatch_mar.cli

    background = Background()
    if options.stop:
        return background.stop()
    if background.is_running():
        say("TorchServe is already running, please use torchserve --stop to stop TorchServe.")
        return 1
    configuration = _configure(options, os.environ)
    if not options.foreground:
        return background.start(["-m", MODULE, *arguments, "--foreground"])
    for remark in configuration.remarks:
        click.echo(f"{PROGRAM}: {remark}", err=True)
    from hatch_mar.cli.torchserve.configured import serve_configuration  # noqa: PLC0415 - see hatch_mar.cli

    with background.here():
        return serve_configuration(configuration, snapshots=not options.no_config_snapshots)


def _parser() -> argparse.ArgumentParser:
    """Return the parser of TorchServe's own flags; argparse as there, with its abbreviations."""
    parser = argparse.ArgumentParser(prog=PROGRAM, description="TorchServe, by hatch-mar")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("-v", "--version", action="store_true", help="print the version")
    action.add_argument("--start", action="store_true", help="start the server (the default)")
    action.add_argument("--stop", action="store_true", help="stop the server")
    parser.add_argument("--ts-config", metavar="FILE", help="config.properties")
    parser.add_argument("--model-store", metavar="DIR", help="directory of archives")
    parser.add_argument("--workflow-store", metavar="DIR", help="accepted, without effect")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL",
        help="all, archives of the model store, directories or URLs; NAME=... renames one",
    )
    parser.add_argument("--log-config", metavar="FILE", help="accepted, without effect")
    parser.add_argument("--cpp-log-config", metavar="FILE", help="accepted, without effect")
    parser.add_argument("--foreground", action="store_true", help="stay in the foreground")
    parser.add_argument(
        "--no-config-snapshots", "--ncs", action="store_true", help="write no snapshots"
    )
    parser.add_argument("--plugins-path", "--ppath", metavar="PATH", help="without effect")
    parser.add_argument(
        "--disable-token-auth", "--dt", action="store_true", help="let requests in without token"
    )
    parser.add_argument(
        "--enable-model-api", action="store_true", help="let models be registered at run time"
    )
    return parser


def _configure(options: argparse.Namespace, environ: Mapping[str, str]) -> Configuration:
    """Return what the flags and the file that they name come to.

    Without a file, the last snapshot is what to go on with.

    Raises:
        HatchMarError: something that they name is not there, or the model store is not named.
        ProblemsError: what is wrong in the file.
    """
    remarks = [text for name, text in _WITHOUT_EFFECT.items() if getattr(options, name)]
    config = environ.get(CONFIG_VARIABLE) or options.ts_config
    if config is not None and not Path(config).is_file():
        raise HatchMarError(f"--ts-config file not found: {config}")
    overrides = {
        "model_store": options.model_store,
        "load_models": ",".join(options.models) if options.models else None,
        "enable_model_api": "true" if options.enable_model_api else None,
        "disable_token_authorization": "true" if options.disable_token_auth else None,
    }
    path = Path(config) if config is not None else None
    if path is None and not options.no_config_snapshots:
        path = newest_snapshot(snapshot_directory(environ))
        if path is not None:
            remarks.append(f"going on with what {path} says; --no-config-snapshots begins afresh")
    set_here = {key: value for key, value in overrides.items() if value is not None}
    try:
        found = read_properties(path, environ=environ, overrides=set_here)
    except HatchMarError:
        if path is not None and config is None:
            click.echo(f"{PROGRAM}: {remarks[-1]}", err=True)
        raise
    properties = found.properties
    if properties.model_store is None:
        raise HatchMarError("Missing mandatory parameter --model-store")
    if not Path(properties.model_store).is_dir():
        raise HatchMarError(f"--model-store directory not found: {properties.model_store}")
    return replace(found, remarks=[*remarks, *found.remarks])


if __name__ == "__main__":
    main()
