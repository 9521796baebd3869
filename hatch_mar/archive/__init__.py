"""The box: all that knows what is inside a model archive, the only door between the halves."""
