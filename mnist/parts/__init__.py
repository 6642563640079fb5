"""Images of MNIST as parts, halves or pixels, any of which may be missing (github.com/jgoffinet/poe-vae)."""
