import torch
from ts.torch_handler.base_handler import BaseHandler


class ScoreHandler(BaseHandler):
    """BaseHandler loads the model and turns its output into lists."""

    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.tensor(rows, dtype=torch.float32, device=self.device)
