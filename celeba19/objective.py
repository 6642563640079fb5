"""The objective of the authors' celeba19/train.py."""

from common.objectives import MvaeElbo


class AuthorsElbo(MvaeElbo):
    """MvaeElbo with the weights that the authors' celeba19/train.py passes on."""

    def weight(self, name: str, subset: str) -> float:
        """Return a modality's weight in the term of a subset: lambda in the joint and the image's term, else 1."""
        return self.weights[name] if subset in ("joint", "image") else 1.0
