import torch
from ts.torch_handler.base_handler import BaseHandler


class OnnxHandler(BaseHandler):
    """TorchServe opens the session; calling it is the handler's business there."""

    def preprocess(self, data):
        rows = [row.get("data") or row.get("body") for row in data]
        return torch.tensor(rows, dtype=torch.float32)

    def inference(self, data, *args, **kwargs):
        (name,) = (node.name for node in self.model.get_inputs())
        return self.model.run(None, {name: data.numpy()})[0]

    def postprocess(self, scores):
        return [
            {"label": self.mapping[str(row.argmax())], "scores": row.tolist()} for row in scores
        ]
