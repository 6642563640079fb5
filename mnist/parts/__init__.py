"""Models of MNIST's images split into halves or pixels, any of which may be missing (github.com/jgoffinet/poe-vae)."""
