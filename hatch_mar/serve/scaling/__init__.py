"""Workers between `minWorkers` and `maxWorkers` follow the load."""
