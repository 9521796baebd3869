"""`ts.torch_handler.distributed`: base classes of models in several parts."""
