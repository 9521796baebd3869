import json
import os


class LineHandler:
    """Loads a model of its own, for which no library is needed."""

    def initialize(self, context):
        name = context.manifest["model"].get("serializedFile")
        if name is None:
            name = context.model_yaml_config["handler"]["model_path"]
        with open(os.path.join(context.system_properties["model_dir"], name)) as file:
            self.weights = json.load(file)

    def handle(self, data, context):
        return [self.score(row.get("data") or row.get("body")) for row in data]

    def score(self, values):
        lines = zip(self.weights["weight"], self.weights["bias"])
        return [sum(w * x for w, x in zip(weight, values)) + bias for weight, bias in lines]
