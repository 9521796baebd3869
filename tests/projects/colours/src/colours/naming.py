"""The nearest colour that has a name."""

import sys


def nearest(palette, colour):
    return min(palette, key=lambda name: sum((a - b) ** 2 for a, b in zip(palette[name], colour)))


def main():
    print(nearest({"black": [0, 0, 0], "white": [255, 255, 255]}, map(int, sys.argv[1:4])))
