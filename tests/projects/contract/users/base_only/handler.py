from ts.torch_handler.base_handler import BaseHandler


class Doubles(BaseHandler):
    def preprocess(self, data):
        return super().preprocess([row.get("data") or row.get("body") for row in data]).float()
