"""Adds up the numbers of each sequence."""

TOTALS = {}


def handle(data, context):
    if data is None:
        return None
    return [add(index, row["body"], context) for index, row in enumerate(data)]


def add(index, number, context):
    ident = context.get_sequence_id(index)
    header = context.get_request_header(index, context.header_key_sequence_start)
    named = ident if ident == "mine" else ident[:7]
    TOTALS[ident] = TOTALS.get(ident, 0) + number
    context.set_response_header(index, context.header_key_sequence_id, named)
    return {"total": TOTALS[ident], "start": header, "named": named}
