"""The worker process: what it does with the frames that it gets."""
