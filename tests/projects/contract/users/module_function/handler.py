import logging

logger = logging.getLogger(__name__)
model = None


class Greeter:
    def __call__(self, name):
        return "hello " + name


def handle(data, context):
    global model
    if not data:
        model = Greeter()
        return None
    names = [row.get("data") or row.get("body") for row in data]
    return [
        model(name.decode() if isinstance(name, (bytes, bytearray)) else str(name))
        for name in names
    ]
