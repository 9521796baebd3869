"""What a model requires beside the runner, and where that is installed."""
