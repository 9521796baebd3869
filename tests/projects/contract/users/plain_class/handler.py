import json


class MyHandler(object):
    def __init__(self):
        self.initialized = False
        self._context = None

    def initialize(self, context):
        self._context = context
        self.manifest = context.manifest
        self.properties = context.system_properties
        self.initialized = True

    def handle(self, data, context):
        return [
            {
                "model": self.manifest["model"]["modelName"],
                "batch": self.properties.get("batch_size"),
                "gpu": self.properties.get("gpu_id"),
                "rows": sorted(row.keys()),
            }
            for row in data
        ]
