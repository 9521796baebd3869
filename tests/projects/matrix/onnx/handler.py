from ts.torch_handler.base_handler import BaseHandler


class ScoreHandler(BaseHandler):
    """Everything is BaseHandler's."""
