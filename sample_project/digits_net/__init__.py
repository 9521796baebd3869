"""The digit classifier: its architecture and its input transforms."""
