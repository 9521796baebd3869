"""The names that follow from a project's own. Stdlib only: the metadata hook needs them too."""

from __future__ import annotations

import re
from string import Formatter

NAME_PATTERN = re.compile(r"[A-Za-z][A-Za-z0-9_.-]*")
"""What a served name that we write looks like (torch-model-archiver's documented rule)."""
SCRIPT_TEMPLATE = "serve-{name}"


def is_served_name(name: str) -> bool:
    """Say whether `name` may be written as a model's name."""
    return NAME_PATTERN.fullmatch(name) is not None


def package_name(project_name: str) -> str:
    """Return the name of the generated top-level package of a project (normalised as PEP 503)."""
    normalised = re.sub(r"[-_.]+", "_", project_name).lower()
    return f"_{normalised}_mar" if normalised[:1].isdigit() else f"{normalised}_mar"


def script_name(
    name: str,
    template: str | bool = SCRIPT_TEMPLATE,  # noqa: FBT001 - TOML's false, for no script
) -> str | None:
    """Return the console script's name for the served `name`; None where `template` is false.

    Raises:
        ValueError: the template has another field than `{name}`, or makes no usable file name.
    """
    if template is False:
        return None
    script = fill(SCRIPT_TEMPLATE if template is True else template, name=name)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", script):
        raise ValueError(f"'{script}' is not a name for a program")
    return script


def fill(template: str, **values: str) -> str:
    """Put `values` into the `{fields}` of `template`.

    Raises:
        ValueError: a field that is more than a name among `values`, or unbalanced braces.
    """
    known = " and ".join(f"{{{name}}}" for name in values)
    try:
        pieces = list(Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"'{template}' is not a template of {known}") from error
    filled = ""
    for text, field, form, conversion in pieces:
        if field is not None and (field not in values or form or conversion):
            raise ValueError(f"'{template}' is not a template of {known}")
        filled += text if field is None else text + values[field]
    return filled
