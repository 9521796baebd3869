import json
import os
import sys

import torch
from shapes import area  # an extra file, beside this one at run time


class Handler:
    def __init__(self):
        self.factor = None

    def initialize(self, context):
        folder = context.system_properties["model_dir"]
        with open(os.path.join(folder, "factor.json")) as file:
            self.factor = json.load(file)["factor"]
        self.at_home = os.path.samefile(os.getcwd(), folder)
        self.importable = any(os.path.samefile(p, folder) for p in sys.path if os.path.isdir(p))
        self.gpu = context.system_properties.get("gpu_id")

    def handle(self, data, context):
        answers = []
        for row in data:
            sides = row.get("data") or row.get("body")
            total = torch.tensor([area(*pair) for pair in sides]).sum() * self.factor
            answers.append(
                {
                    "area": total.item(),
                    "at_home": self.at_home,
                    "importable": self.importable,
                    "gpu": self.gpu,
                }
            )
        return answers
