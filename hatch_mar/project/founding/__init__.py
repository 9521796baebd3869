"""New projects: from a checkpoint, whose kind is found by reading it, or from nothing."""
