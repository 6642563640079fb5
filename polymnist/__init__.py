"""PolyMNIST: several images of the same digit, each in its own handwriting on its own background."""
