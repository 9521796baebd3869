"""The least that predicts: import torch, load the sample's model, classify one picture.

    python digits_script.py SAMPLE_PROJECT IMAGE

It then waits for its standard input to end, so that its memory can be looked at.
"""

import sys

sys.path.insert(0, sys.argv[1])

import torch
from digits_net.model import DigitNet
from digits_net.transforms.pixels import read_pixels
from PIL import Image

model = DigitNet(width=32)
model.load_state_dict(torch.load(f"{sys.argv[1]}/weights/digits.pt", weights_only=True))
model.eval()
with torch.inference_mode():
    scores = model(read_pixels(Image.open(sys.argv[2])).unsqueeze(0))
print(int(scores.argmax()), flush=True)
sys.stdin.read()
