"""Fahrenheit from Celsius: the smallest network that somebody trained."""

import torch

try:
    from base_handler import handler_factory
except ModuleNotFoundError:
    from hatch_mar import handler_factory


def init_function():
    return torch.nn.Linear(1, 1)


def preprocess(sample):
    return torch.tensor([float(sample["celsius"])])


def postprocess(output):
    return {"fahrenheit": round(float(output), 1)}


handler = handler_factory(
    init_function=init_function,
    preprocess_function=preprocess,
    postprocess_function=postprocess,
)
