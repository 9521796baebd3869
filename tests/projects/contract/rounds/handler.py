"""Counts down in rounds, and answers in the last one."""

LEFT = {}


def handle(data, context):
    if data is None:
        return None
    ids = context.request_ids
    for index, row in enumerate(data):
        if row:
            LEFT[ids[index]] = row["body"]
    context.stopping_criteria = [stop_at_zero for _ in data]
    counted = []
    for index in range(len(data)):
        LEFT[ids[index]] -= 1
        counted.append(f"{LEFT[ids[index]]} ")
    return counted


def stop_at_zero(output):
    return output == "0 "
