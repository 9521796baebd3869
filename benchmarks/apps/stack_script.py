"""The least that maps a safetensors file and predicts.

    python stack_script.py PROJECT WEIGHTS ROW

It then waits for its standard input to end, so that its memory can be looked at.
"""

import json
import sys

sys.path.insert(0, sys.argv[1])

import torch
from model import Stack
from safetensors.torch import load_file

with torch.device("meta"):
    model = Stack()
model.load_state_dict(load_file(sys.argv[2]), assign=True)
model.eval()
with torch.inference_mode():
    answer = model(torch.tensor([json.loads(sys.argv[3])]))
print(json.dumps(answer[0].tolist()), flush=True)
sys.stdin.read()
