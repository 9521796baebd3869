"""On the device: everything between a batch in host memory and its answers.

Nothing here is imported for a model whose config has no section `cuda`.
"""
