"""The objective of the authors' celeba19/train.py."""

from common.objectives import MvaeElbo


class AuthorsElbo(MvaeElbo):
    """MvaeElbo with the weights that the authors' celeba19/train.py passes on."""

    def weight(self, name: str, subset: str) -> float:
        """lambda in the joint term and the image's term, 1 in the others."""
        return self.weights[name] if subset in ("joint", "image") else 1.0
