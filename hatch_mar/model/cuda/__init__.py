"""On the device: everything between a batch in host memory and its answers.

Nothing here is imported for a model that runs on the CPU and has no section `cuda` in its config.
"""
