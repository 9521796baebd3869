import os

import shapes
from helpers import shout


class Several:
    def initialize(self, context):
        with open(os.path.join(context.system_properties.get("model_dir"), "words.txt")) as words:
            self.words = words.read().split()

    def handle(self, data, context):
        return [
            {
                "area": shapes.area(2, 3),
                "shout": shout(self.words[0]),
                "cwd": os.path.exists("words.txt"),
            }
            for _ in data
        ]
