import numpy as np
from ts.torch_handler.base_handler import BaseHandler


class ScoreHandler(BaseHandler):
    """BaseHandler opens the session; running it is this handler's business."""

    def preprocess(self, data):
        return np.array([row.get("data") or row.get("body") for row in data], dtype=np.float32)

    def inference(self, data, *args, **kwargs):
        (name,) = (node.name for node in self.model.get_inputs())
        return self.model.run(None, {name: data})[0]
