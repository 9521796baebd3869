"""Write random weights of the network in PROJECT to WEIGHTS: `stack_weights.py PROJECT WEIGHTS`."""

import sys

sys.path.insert(0, sys.argv[1])

import torch
from model import Stack
from safetensors.torch import save_file

torch.manual_seed(0)
save_file(Stack().state_dict(), sys.argv[2])
