"""A handler class in a package that is also imported by others."""

import json
from pathlib import Path

from colours.naming import nearest


class ColourHandler:
    def initialize(self, context):
        properties = context.system_properties
        weights = context.manifest["model"]["serializedFile"]
        self.palette = json.loads(Path(properties["model_dir"], weights).read_text())

    def handle(self, data, context):
        return [nearest(self.palette, self.read(row)) for row in data]

    def read(self, row):
        body = row.get("body") or row.get("data")
        return body if isinstance(body, list) else json.loads(bytes(body))
