"""What the author wrote: pyproject.toml, model-config.yaml and the files they name."""
