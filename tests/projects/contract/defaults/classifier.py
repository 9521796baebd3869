import torch


class Classifier(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 8, kernel_size=9, stride=7)
        self.out = torch.nn.Linear(8, 12)

    def forward(self, x):
        return self.out(torch.relu(self.features(x)).mean((2, 3))) * 5
