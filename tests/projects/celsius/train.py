"""Fit the network to two thermometers and save its weights: `python train.py celsius.pt`."""

import sys

import torch

CELSIUS = torch.tensor([[-40.0], [0.0], [37.0], [100.0]])
FAHRENHEIT = torch.tensor([[-40.0], [32.0], [98.6], [212.0]])

samples = torch.cat([CELSIUS, torch.ones_like(CELSIUS)], dim=1)
slope, offset = torch.linalg.lstsq(samples, FAHRENHEIT).solution.flatten()
torch.save({"weight": slope.reshape(1, 1), "bias": offset.reshape(1)}, sys.argv[1])
