import torch
from ts.handler_utils.micro_batching import MicroBatching
from ts.torch_handler.base_handler import BaseHandler


class Micro(BaseHandler):
    def __init__(self):
        super().__init__()
        self.handle = MicroBatching(self)

    def initialize(self, ctx):
        super().initialize(ctx)
        config = ctx.model_yaml_config["micro_batching"]
        self.handle.parallelism = config["parallelism"]
        self.handle.micro_batch_size = config["micro_batch_size"]

    def preprocess(self, data):
        return torch.tensor([row.get("body") for row in data], dtype=torch.float32)

    def postprocess(self, data):
        return [
            {"scores": row, "piece": self.handle.get_micro_batch_idx()} for row in data.tolist()
        ]
