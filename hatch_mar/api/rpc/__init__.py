"""The same service over gRPC: TorchServe's protocols, and nothing that REST does not have too."""
