"""As much of torchvision as the examples use, small: it stands in where that cannot be installed."""
