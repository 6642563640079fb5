"""Files of CUB's original layout, with random pictures and captions by a rule."""

import numpy as np
from PIL import Image

COLOURS = ("red", "blue", "black", "white", "green")
# of images of each class; the fourth and the last have no captions, b. has some alone
IMAGES = {"a.One": 3, "b.Two": 2, "c.Three": 1, "d.None": 2, "e.Four": 2, "f.Five": 1, "g.None": 1}
CAPTIONED = [name for name in IMAGES if not name.endswith("None")]


def caption(of_class, i, k):
    return f"this bird has a {COLOURS[k % 5]} belly, it is number {k} of image {i} in {of_class[2:]}."


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30 + seed % 7, 41, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((90, 70 + seed % 7)).save(path)


def write_cub(root, images_dir="CUB_200_2011/images", lists=None):
    """The original layout: pictures of no common size, ten captions of each but of two classes."""
    for c, (of_class, n) in enumerate(IMAGES.items()):
        for i in range(n):
            write_image(root / images_dir / of_class / f"bird_{i}.jpg", 10 * c + i)
            if of_class in CAPTIONED:
                text = root / "text_c10" / of_class / f"bird_{i}.txt"
                text.parent.mkdir(parents=True, exist_ok=True)
                text.write_text("".join(f"{caption(of_class, i, k)}\n" for k in range(10)))
    for name, classes in (lists or {}).items():
        (root / name).write_text("".join(f"{of_class}\n" for of_class in classes))
    return root
