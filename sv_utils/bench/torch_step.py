"""
The other side of `bench.training.step`: thin ResNet-34 in PyTorch, channels last, in a process without Keras.

``python -m sv_utils.bench.torch_step BATCH FRAMES CLASSES`` makes a training step for each line that it reads and
answers its loss.
"""

import os
import sys

import torch
from torch import nn


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Module:
    layer = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(after))


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, as in `backbones.resnet`."""

    def __init__(self, before: int, after: int):
        super().__init__()
        stride = 1 if before == after else 2
        self.first, self.second = _convolution(before, after, 3, stride), _convolution(after, after, 3)
        self.shortcut = nn.Identity() if before == after else _convolution(before, after, 1, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.shortcut(x) + self.second(torch.relu(self.first(x))))


class ThinResNet34(nn.Module):
    """Features [shape=(batch, 1, bins, frames)] to 30 times the cosines to `classes` directions."""

    def __init__(self, classes: int):
        super().__init__()
        widths = [32] * 3 + [64] * 4 + [128] * 6 + [256] * 3
        blocks = [Block(before, after) for before, after in zip([32, *widths[:-1]], widths)]
        self.maps = nn.Sequential(_convolution(1, 32, 3), nn.ReLU(), *blocks)
        self.embedding = nn.Sequential(nn.Linear(5120, 256), nn.BatchNorm1d(256))
        self.weight = nn.Parameter(torch.randn(classes, 256) / 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        frames = self.maps(x).flatten(1, 2)
        pooled = torch.cat([frames.mean(2), (frames.var(2, unbiased=False) + 1e-7).sqrt()], dim=1)
        unit = nn.functional.normalize
        return 30 * unit(self.embedding(pooled)) @ unit(self.weight).T


def main(batch: int, frames: int, classes: int) -> None:
    """Answer each line of the standard input with a training step."""
    torch.set_num_threads(os.cpu_count())
    torch.manual_seed(0)
    network = ThinResNet34(classes).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), 0.01, momentum=0.9, nesterov=True)
    features = torch.randn(batch, 1, 80, frames).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(classes, (batch,))
    for _ in sys.stdin:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(features), targets)
        loss.backward()
        optimizer.step()
        print(loss.item(), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
