"""The street door: TorchServe's REST, KServe's and ours, over `hatch_mar.serve.Service`.

`create_app` gives an ASGI application that any server can host. `listeners` runs it in uvicorn with
a fast lane for predictions. Nothing here knows how a model is loaded or run.
"""
