"""`ts.torch_handler.unit_tests`: for the tests of handlers."""
