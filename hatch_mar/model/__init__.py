"""Files become a callable: the only room that knows torch and onnx."""
