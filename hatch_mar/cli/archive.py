"""`hatch-mar archive`: what torch-model-archiver does, with its options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hatch_mar.cli.output import emit, json_option, progress, say, told_as_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatch_mar.project.archiver.order import Order

FORMATS = ("default", "zip-store", "tgz", "no-archive")
RUNTIMES = ("python", "python3", "LSP")

_OPTIONS = (
    click.option("--model-name", required=True, help="Name of the model, and of the archive."),
    click.option("-v", "--version", required=True, help="The model's version."),
    click.option(
        "--handler",
        required=True,
        help="A default handler, or a Python file: file.py, or file.py:function.",
    ),
    click.option(
        "--serialized-file",
        metavar="FILE",
        help="Weights: a state dict, TorchScript, TensorRT or ONNX.",
    ),
    click.option(
        "--model-file", metavar="FILE", help="The architecture of an eager model: one class."
    ),
    click.option(
        "--extra-files",
        metavar="LIST",
        help="Files, folders and patterns, separated by commas. A folder loses its own name.",
    ),
    click.option(
        "-r", "--requirements-file", metavar="FILE", help="What pip is to install for the model."
    ),
    click.option("-c", "--config-file", metavar="FILE", help="The model's configuration, in YAML."),
    click.option(
        "--runtime",
        type=click.Choice(RUNTIMES),
        default="python",
        help="What runs the handler; LSP is TorchServe's C++ backend.",
    ),
    click.option(
        "--export-path",
        metavar="DIRECTORY",
        default="",
        help="Where the archive goes; the current directory unless given.",
    ),
    click.option(
        "--archive-format",
        type=click.Choice(FORMATS),
        default="default",
        help=(
            "NAME.mar, deflated (default) or stored (zip-store), NAME.tar.gz (tgz), "
            "or the directory NAME (no-archive)."
        ),
    ),
    click.option("-f", "--force", is_flag=True, help="Overwrite the archive if it is there."),
    click.option(
        "--model-path",
        metavar="DIRECTORY",
        help="Where relative files are looked for first; then in the current directory.",
    ),
)


def archiver_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command every option of torch-model-archiver 0.12, and `--model-path`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


class AbbreviatingCommand(click.Command):
    """A command whose long options may be cut short, as argparse has it: `--model-n`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Write each option in full first.

        Raises:
            click.UsageError: a short form of several options, or what `click` says of the rest.
        """
        end = args.index("--") if "--" in args else len(args)
        names = {
            name
            for parameter in self.get_params(ctx)
            for name in parameter.opts
            if name.startswith("--")
        }
        return super().parse_args(
            ctx, [*(_in_full(ctx, each, names) for each in args[:end]), *args[end:]]
        )


def _in_full(context: click.Context, argument: str, names: set[str]) -> str:
    short, equals, value = argument.partition("=")
    if not short.startswith("--") or short in names:
        return argument
    meant = sorted(name for name in names if name.startswith(short))
    if len(meant) > 1:
        raise click.UsageError(f"{short} may be {', '.join(meant)}", context)
    return f"{meant[0]}{equals}{value}" if meant else argument


@click.command(cls=AbbreviatingCommand)
@archiver_options
@json_option
def command(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - the options above
    """Pack a model's files into an archive, with the options of torch-model-archiver.

    Prints the archive's path. Exits with 2 if the options make no archive, all reasons at once.
    """
    with told_as_json("", as_json=as_json):
        order = write_order(given, warn=lambda text: f"hatch-mar: warning: {text}")
    if as_json:
        emit(_describe(order))
    else:
        say(str(order.path))


def write_order(given: dict[str, Any], *, warn: Callable[[str], str]) -> Order:
    """Write the archive that the options ask for; `warn` renders its warnings, for stderr.

    Raises:
        ProblemsError: the options make no archive.
        ArchiveError: the archive cannot be written.
    """
    from hatch_mar.archive.write import write_archive  # noqa: PLC0415 - see hatch_mar.cli
    from hatch_mar.project.archiver.order import ArchiverOptions, read_order  # noqa: PLC0415

    order = read_order(ArchiverOptions(**given))
    for warning in order.warnings:
        click.echo(warn(warning), err=True)
    total = sum(member.size() for member in order.plan.members)
    with progress(order.plan.filename, total) as advance:
        write_archive(order.plan, order.path, advance=advance)
    return order


def _describe(order: Order) -> dict[str, Any]:
    plan = order.plan
    return {
        "path": order.path,
        "format": plan.format,
        "compression": plan.compression,
        "handler": {"manifest": plan.manifest.handler, "found": order.handler},
        "runtime": plan.runtime,
        "manifest": plan.manifest.as_dict(),
        "members": [{"name": each.name, "size": each.size()} for each in plan.members],
        "warnings": order.warnings,
        "problems": [],
    }
