"""What a client sent becomes the row that a handler sees.

The shape is TorchServe's: a form gives one part per field, anything else is one part named `body`.
Values stay bytes: the worker decodes them by content type, so that the door never holds a copy.
"""

from __future__ import annotations

from urllib.parse import unquote_plus, unquote_to_bytes

from hatch_mar.errors import BadRequestError
from hatch_mar.serve import Part

_MULTIPART = "multipart/form-data"
_URLENCODED = "application/x-www-form-urlencoded"
_BINARY = "application/octet-stream"
_MAX_PARTS = 1000
"""Parts of one form: far above any model's inputs, far below what would tie up the loop."""


def read_single(content_type: str) -> str | None:
    """Return the media type, parameters stripped, of a body that is one part; None for a form."""
    media_type = content_type.partition(";")[0].strip()
    return None if media_type.lower() in (_URLENCODED, _MULTIPART) else media_type


def read_parts(content_type: str, body: bytes | bytearray) -> list[Part]:
    """Return the parts of a request's `body`, given its Content-Type header as sent.

    Raises:
        BadRequestError: a multipart body that is cut off or has no boundary.
    """
    media_type = read_single(content_type)
    return read_form(content_type, body) if media_type is None else [Part("body", media_type, body)]


def read_form(content_type: str, body: bytes | bytearray | memoryview) -> list[Part]:
    """Return one part per field of a form, the last of a repeated name.

    Raises:
        BadRequestError: a multipart body that is cut off or has no boundary.
    """
    if content_type.lower().startswith(_URLENCODED):
        return _read_urlencoded(bytes(body))
    return _read_multipart(content_type, bytes(body))


def read_query(query: bytes) -> list[Part]:
    """Return one part per `name=value` of a query string, the last of a repeated name."""
    return _read_urlencoded(query)


def _read_urlencoded(body: bytes) -> list[Part]:
    """Return the fields of an urlencoded form; what has no `=` is dropped, as in TorchServe."""
    fields: dict[str, Part] = {}
    for field in body.strip().split(b"&"):
        name, equals, value = field.partition(b"=")
        if equals:
            key = unquote_plus(name.decode("latin-1"))
            fields[key] = Part(key, "", unquote_to_bytes(value.replace(b"+", b" ")))
    return list(fields.values())


def _read_multipart(content_type: str, body: bytes) -> list[Part]:
    """Return the parts of a multipart form, the last of a repeated name."""
    # Imported here because most deployments never see a form.
    from python_multipart.exceptions import FormParserError  # noqa: PLC0415
    from python_multipart.multipart import MultipartParser, parse_options_header  # noqa: PLC0415

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise BadRequestError("multipart/form-data without a boundary.")
    form = _Form(body)
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadRequestError(f"Malformed multipart/form-data: {error}") from error
    if not form.ended:
        raise BadRequestError("Malformed multipart/form-data: the closing boundary is missing.")
    return form.parts()


class _Form:
    """Collects the parts that a multipart parser finds in one `body`."""

    def __init__(self, body: bytes) -> None:
        self.ended = False
        self._fields: dict[str, Part] = {}
        self._count = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._data = bytearray()
        self._body = body

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def parts(self) -> list[Part]:
        return list(self._fields.values())

    def _begin(self) -> None:
        self._count += 1
        if self._count > _MAX_PARTS:
            raise BadRequestError(f"Malformed multipart/form-data: more than {_MAX_PARTS} parts.")
        self._headers = {}
        self._data = bytearray()

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data += memoryview(data)[start:end]

    def _finish(self) -> None:
        self.ended = True

    def _end(self) -> None:
        """Keep the part under its name: with its content type only where it is a file."""
        from python_multipart.multipart import parse_options_header  # noqa: PLC0415

        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        name = options.get(b"name")
        if name is None:
            return
        media_type = ""
        if b"filename" in options:
            declared = self._headers.get(b"content-type", _BINARY.encode())
            media_type = declared.decode("latin-1").partition(";")[0].strip()
        key = name.decode(errors="replace")
        self._fields[key] = Part(key, media_type, self._data)
