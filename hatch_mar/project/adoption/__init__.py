"""Projects for what torch-model-archiver made, and for the commands that made it."""
