import logging
import os
from abc import ABC

import torch
from ts.torch_handler.base_handler import BaseHandler

logger = logging.getLogger(__name__)


class ScoreHandler(BaseHandler, ABC):
    def __init__(self):
        super(ScoreHandler, self).__init__()
        self.initialized = False

    def initialize(self, ctx):
        super().initialize(ctx)
        assert os.path.isfile(self.model_pt_path)
        self.setup_config = ctx.model_yaml_config.get("handler", {})
        self.initialized = True

    def preprocess(self, requests):
        rows = []
        for row in requests:
            value = row.get("data") or row.get("body")
            rows.append(value)
        return torch.tensor(rows, dtype=torch.float32).to(self.device)

    def inference(self, data, *args, **kwargs):
        with torch.no_grad():
            return self.model(data)

    def postprocess(self, inference_output):
        return [
            {
                "scores": row,
                "name": self.mapping[str(int(torch.tensor(row).argmax()))],
                "config": self.setup_config,
            }
            for row in inference_output.tolist()
        ]

    def explain_handle(self, data_preprocess, raw_data):
        return [{"explained": data_preprocess.tolist(), "flag": self.explain}]

    def describe_handle(self):
        return {"about": "scores"}
