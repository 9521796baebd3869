"""The handler that a new project begins with: what its checkpoint is decides how it reads."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING, Any

from hatch_mar.project.draft import to_toml
from hatch_mar.project.founding import templates
from hatch_mar.project.founding.checkpoint import NAMES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatch_mar.project.founding.checkpoint import Checkpoint
    from hatch_mar.project.founding.pickled import Tensor

SHOWN = 12
"""Tensors that the comment on the weights lists."""


def fill(template: str, **values: str) -> str:
    """Return `template` with its `$names` filled in."""
    return Template(template).substitute(values)


def factory_handler(
    checkpoint: Checkpoint | None, *, module: str, network: str, arguments: Mapping[str, Any]
) -> str:
    """Return a handler that loads `checkpoint` into `network`, made with `arguments`."""
    return fill(
        templates.FACTORY_HANDLER,
        module=module,
        network=network,
        tensors=_comment_on(checkpoint),
        dtype="torch.long" if _begins_with_an_embedding(checkpoint) else "torch.float32",
        arguments="".join(f"    {key}={value!r},\n" for key, value in arguments.items()),
    )


def render(tensor: Tensor) -> str:
    """Return a tensor's name and shape, for a person."""
    return f"{tensor.name} {'x'.join(map(str, tensor.shape)) or 'scalar'}"


def _comment_on(checkpoint: Checkpoint | None) -> str:
    """Return a comment on what the weights hold."""
    if checkpoint is None:
        return "# There are no weights: the network answers with what it is born with.\n"
    tensors = checkpoint.tensors
    lines = [f"# The weights, {len(tensors)} in all:" if tensors[SHOWN:] else "# The weights:"]
    for tensor in tensors[:SHOWN]:
        text = "".join(each if each.isprintable() else repr(each)[1:-1] for each in render(tensor))
        lines.append(f"#   {text}")
    if tensors[SHOWN:]:
        lines.append("#   ...")
    return "\n".join(lines) + "\n"


def _begins_with_an_embedding(checkpoint: Checkpoint | None) -> bool:
    return bool(checkpoint and checkpoint.tensors and "emb" in checkpoint.tensors[0].name.lower())


def whole_model_handler(checkpoint: Checkpoint) -> str:
    """Return a handler for a checkpoint that needs no network beside it."""
    if checkpoint.kind != "onnx":
        return fill(templates.MODULE_HANDLER, kind=NAMES[checkpoint.kind])
    inputs = checkpoint.inputs
    described = [f"    {render(each)} {each.dtype}".replace("\\", "\\\\") for each in inputs]
    head = "Its inputs, where 0 is any length, the batch first:" if inputs else "It has no inputs."
    feed = _feed(inputs)
    return fill(templates.ONNX_HANDLER, inputs="\n".join([head, "", *described]), feed=feed)


def _feed(inputs: tuple[Tensor, ...]) -> str:
    """Return the statement that makes the session's inputs of `rows`."""
    indent = " " * 8
    if len(inputs) == 1:
        name, dtype = to_toml(inputs[0].name), inputs[0].dtype or "float32"
        return f"{indent}return {{{name}: np.asarray(rows, dtype=np.{dtype})}}"
    lines = [
        f"{indent}    {name}: np.asarray([row[{name}] for row in rows], dtype=np.{dtype}),"
        for name, dtype in ((to_toml(each.name), each.dtype or "float32") for each in inputs)
    ]
    return "\n".join([f"{indent}return {{", *lines, f"{indent}}}"])
