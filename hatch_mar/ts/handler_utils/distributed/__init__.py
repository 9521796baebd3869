"""`ts.handler_utils.distributed`: engines of models in several parts."""
