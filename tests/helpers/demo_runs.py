"""Short trainings on the built-in data: their options, and the texts that samples have."""

OPTIONS = ["--demo", "--epochs", "1", "--annealing-epochs", "1", "--n-latents", "8"]
TINY = ("--epochs", 1, "--annealing-epochs", 1, "--n-latents", 6, "--limit", 40, "--batch-size", 20)


def texts(folder):
    """The lines of the only file of texts in a folder."""
    (path,) = folder.glob("*.txt")
    return path.read_text().split("\n")[:-1]
