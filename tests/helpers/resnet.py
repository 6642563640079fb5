"""A quick network in the place of ResNet-101."""

from torch import nn


def small_resnet(n_classes=None):
    """A quick stand-in, with the real one's names at both ends."""
    modules = {"conv1": nn.Conv2d(3, 2048, 1, bias=False), "bn1": nn.BatchNorm2d(2048), "relu": nn.ReLU()}
    modules |= {"avgpool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    network = nn.Sequential()
    for name, module in modules.items():
        network.add_module(name, module)
    network.add_module("fc", nn.Linear(2048, n_classes) if n_classes else nn.Identity())
    return network
