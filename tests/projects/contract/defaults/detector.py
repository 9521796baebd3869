import torch


class Detector(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(4))

    def forward(self, images):
        found = []
        for image in images:
            height, width = image.shape[-2:]
            mean = image.mean()
            box = torch.stack([mean, mean, torch.tensor(float(width)), torch.tensor(float(height))])
            scores = torch.stack([mean, 1 - mean, torch.tensor(0.5), torch.tensor(0.49)])
            labels = torch.tensor([1, 2, 1, 3])
            found.append(
                {"boxes": torch.stack([box * self.scale] * 4), "labels": labels, "scores": scores}
            )
        return found
