import torch
from ts.torch_handler.base_handler import BaseHandler


class ScoreHandler(BaseHandler):
    """BaseHandler loads the model; only the ends differ."""

    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.tensor(rows, dtype=torch.float32, device=self.device)

    def postprocess(self, scores):
        best = scores.argmax(1).tolist()
        return [
            {"label": self.mapping[str(i)], "scores": row, "device": self.device.type}
            for i, row in zip(best, scores.tolist())
        ]
