"""The box: everything that knows what is inside a model archive, and the only door between the halves."""
