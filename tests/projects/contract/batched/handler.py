def handle(data, context):
    """Answers each request with the size of the batch it came in, and its own word."""
    if data is None:
        return None
    return [{"batch": len(data), "word": row["body"]} for row in data]
