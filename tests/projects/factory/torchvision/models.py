import enum
import functools

import torch

CATEGORIES = ["tench", "goldfish", "great white shark", "tiger shark", "hammerhead"]


class ResNet(torch.nn.Module):
    def __init__(self, blocks):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, kernel_size=3, stride=2, bias=False)
        self.bn1 = torch.nn.BatchNorm2d(4)
        self.blocks = torch.nn.ModuleList(
            torch.nn.Conv2d(4, 4, kernel_size=3, padding=1) for _ in range(blocks)
        )
        self.fc = torch.nn.Linear(4, len(CATEGORIES))

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        for block in self.blocks:
            x = torch.relu(x + block(x))
        return self.fc(x.mean((2, 3)))


def resnet18(*, weights=None):
    return ResNet(1)


def resnet50(*, weights=None):
    return ResNet(3)


def to_tensor(image):
    pixels = image.convert("RGB").resize((16, 16))
    values = torch.tensor(list(pixels.tobytes()), dtype=torch.float32)
    return values.view(16, 16, 3).permute(2, 0, 1) / 255


class Weights(enum.Enum):
    """An enumeration may be extended while it has no members."""
    def transforms(self):
        return functools.partial(to_tensor)

    @property
    def meta(self):
        return {"categories": CATEGORIES}


class ResNet18_Weights(Weights):
    DEFAULT = "IMAGENET1K_V1"


class ResNet50_Weights(Weights):
    DEFAULT = "IMAGENET1K_V2"
