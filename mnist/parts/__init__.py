"""Models of MNIST's images split into halves or pixels, where any may be missing (github.com/jgoffinet/poe-vae)."""
