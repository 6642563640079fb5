"""Files of CelebA's layouts, with random pictures and attributes."""

from celeba.attributes import ATTRIBUTES

import numpy as np
from PIL import Image

NAMES = ["5_o_Clock_Shadow", *sorted(ATTRIBUTES, reverse=True), "Young"]  # not in our order, and others among them
N = 12
LAYOUTS = {"official": ("", "Anno/", "Eval/"), "flat": ("", "", ""), "torchvision": ("celeba/",) * 3}


def values(n=N):
    return np.random.default_rng(1).choice([-1, 1], (n, len(NAMES)))


def attribute_file(names, array, count=None):
    rows = [f"{name} {'  '.join(map(str, row))}" for name, row in zip(names, array, strict=True)]
    return "\n".join([str(len(names) if count is None else count), " ".join(NAMES) + " ", *rows]) + "\n"


def write_celeba(folder, layout="flat", n=N, parts=None, suffix=".jpg"):
    """Random pictures of CelebA's shape at a quarter, six to train, three to choose and three to test by."""
    images, anno, parts_file = (folder / place for place in LAYOUTS[layout])
    for path in (images / "img_align_celeba", anno, parts_file):
        path.mkdir(parents=True, exist_ok=True)
    names = [f"{i + 1:06d}{suffix}" for i in range(n)]
    for i, name in enumerate(names):
        picture = np.random.default_rng(i).integers(0, 256, (8, 7, 3), dtype=np.uint8)
        Image.fromarray(picture).resize((45, 55)).save(images / "img_align_celeba" / name, quality=95)
    parts = [0] * (n - 6) + [1] * 3 + [2] * 3 if parts is None else parts
    (anno / "list_attr_celeba.txt").write_text(attribute_file(names, values(n)))
    lines = [f"{name} {part}\n" for name, part in zip(names, parts, strict=True)]
    (parts_file / "list_eval_partition.txt").write_text("".join(lines))
    return folder
