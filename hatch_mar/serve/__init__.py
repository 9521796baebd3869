"""Requests become batches: queues, workers and their processes behind one face, `Service`."""
