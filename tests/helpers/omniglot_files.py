"""Omniglot's archives and folders, with strokes of a number's shape."""

import zipfile

import numpy as np
from PIL import Image

# of each alphabet's characters, how many images
SETS = {
    "images_background": {"Greek": (2, 3), "Armenian": (2,), "Latin": (1, 1, 2)},
    "images_evaluation": {"Tengwar": (3,), "Atlantean": (1, 2)},
}
N_PAGES = {name: sum(map(sum, alphabets.values())) for name, alphabets in SETS.items()}


def page(number):
    """Strokes three pixels wide, of a shape of this number; 1 is ink."""
    ink = np.zeros((105, 105), dtype=bool)
    ink[20:80, 20 + number : 23 + number] = True
    ink[40 + 2 * number : 43 + 2 * number, 15:90] = True
    return ink


def png(ink, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(~ink).save(path)


def write_omniglot(root, zipped=True, sets=SETS, first=0):
    """Both sets; the characters' numbers, in the names of their images, begin with `first`."""
    number = first
    for name, alphabets in sets.items():
        for alphabet, counts in alphabets.items():
            for c, count in enumerate(counts):
                for i in range(count):
                    png(
                        page(number - first),
                        root / name / alphabet / f"character{c + 1:02}" / f"{number:04}_{i + 1:02}.png",
                    )
                number += 1
        if zipped:
            with zipfile.ZipFile(root / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for path in root.glob(f"{name}/*/*/*.png"):
                    archive.write(path, path.relative_to(root))
                archive.writestr(f"__MACOSX/{name}/Greek/character01/._0000_01.png", b"no image")
            for path in sorted((root / name).rglob("*"), reverse=True):
                path.unlink() if path.is_file() else path.rmdir()
            (root / name).rmdir()
    return root
