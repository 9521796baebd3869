"""`ts.torch_handler.request_envelope`: what `service_envelope` names."""
