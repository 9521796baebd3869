"""The JSON schema of `[tool.mar]`, made from the model that validates it.

It is of draft 7, which validate-pyproject and the editors' TOML tools read, and refers to nothing
outside itself. What only a look at the files can tell, it cannot say: `hatch-mar check` does.
"""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from hatch_mar.project.document import HATCHLING_KEYS, HOOK_PREFIX, TOOL_PREFIX
from hatch_mar.project.table import MarTable

DRAFT = "http://json-schema.org/draft-07/schema#"
IDENTIFIER = "urn:hatch-mar:tool.mar"
DEFINITIONS = "#/$defs/"


class _Untitled(GenerateJsonSchema):
    """Pydantic's generator without the titles that it makes of Python's names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401, ARG002
        return False


def tool_schema(tool: str = "mar") -> dict[str, Any]:
    """Return the schema of the table `[tool.mar]`: a plugin of validate-pyproject.

    Args:
        tool: The table's name, as validate-pyproject passes it.
    """
    return {
        "$schema": DRAFT,
        "$id": IDENTIFIER,
        "title": f"Table [tool.{tool}]",
        **_table_schema(),
    }


def pyproject_schema() -> dict[str, Any]:
    """Return a schema of pyproject.toml that knows the tables of hatch-mar: for editors."""
    table = _table_schema()
    hook = {
        **table,
        "description": "The build hook of hatch-mar; its keys win over those of [tool.mar].",
        "properties": {**{key: {} for key in sorted(HATCHLING_KEYS)}, **table["properties"]},
    }
    schema: dict[str, Any] = {"$schema": DRAFT, "title": "pyproject.toml", "type": "object"}
    for place, inner in ((TOOL_PREFIX, table), (HOOK_PREFIX, hook)):
        around = schema
        *outer, last = place.split(".")
        for key in outer:
            around = around.setdefault("properties", {}).setdefault(key, {"type": "object"})
        around.setdefault("properties", {})[last] = inner
    return schema


def _table_schema() -> dict[str, Any]:
    schema = MarTable.model_json_schema(by_alias=True, schema_generator=_Untitled)
    definitions = schema.pop("$defs", {})
    table: dict[str, Any] = _inline(schema, definitions)
    return table


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:  # noqa: ANN401 - a schema's part
    """Put definitions where they are referred to, and take out what TOML has no word for: null."""
    if isinstance(schema, list):
        return [_inline(each, definitions) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = dict(schema)
    reference = schema.pop("$ref", None)
    if reference is not None:
        schema = {**definitions[reference.removeprefix(DEFINITIONS)], **schema}
    if schema.get("type") == "object":
        schema.pop("title", None)
    if schema.get("default") in (None, []) or isinstance(schema.get("default"), dict):
        schema.pop("default", None)
    choices = schema.pop("anyOf", None)
    if choices is not None:
        choices = [each for each in choices if each != {"type": "null"}]
        schema = {**choices[0], **schema} if len(choices) == 1 else {"anyOf": choices, **schema}
    for key, value in schema.items():
        if key == "description":
            schema[key] = " ".join(value.split())
        elif key == "properties":
            schema[key] = {name: _inline(each, definitions) for name, each in value.items()}
        else:
            schema[key] = _inline(value, definitions)
    return schema
