from ts.service import PredictionException as FromService
from ts.utils.util import PredictionException


class Refuses:
    def initialize(self, ctx):
        self.ready = True

    def handle(self, data, context):
        body = data[0].get("body")
        kind = body if isinstance(body, str) else bytes(body).decode()
        if kind == "refuse":
            raise PredictionException("not today", 409)
        if kind == "service":
            raise FromService("too little", 422)
        if kind == "default":
            raise PredictionException("no code")
        if kind == "text":
            print(str(PredictionException("a", 5)))
        if kind == "memory":
            raise MemoryError("full")
        if kind == "cuda":
            raise RuntimeError("CUDA out of memory")
        if kind == "value":
            raise ValueError("bad value")
        if kind == "status":
            context.set_response_status(code=202, phrase="Later", idx=0)
            context.set_response_content_type(0, "text/x-note")
            context.set_response_header(0, "X-Mine", "yes")
            return ["noted"]
        if kind == "all":
            context.set_all_response_status(404, "gone")
            return [{"code": context.get_response_status(0)[0]}]
        if kind == "count":
            return ["one", "two"]
        if kind == "dict":
            return {"not": "a list"}
        if kind == "object":
            return [object()]
        return [kind.upper()]
