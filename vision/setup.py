"""Make the gray, edge and mask images of CelebA's faces, which train.py reads from DATA_DIR/{grayscale,edge,mask}.

    python setup.py grayscale data/img_align_celeba data/grayscale
    python setup.py edge data/img_align_celeba data/edge            Canny's edges, white on black
    python setup.py mask data/img_align_celeba data/mask            the facial features, black on white

Each image of SRC gives one of the same name and size in DST, upright by its EXIF orientation. train.py inverts masks,
so that lines are bright in both. A stopped run keeps what it has written, and the same command continues it; it makes
pictures anew that are older than their images. mask needs dlib (pip install dlib-bin), its predictor of 68 landmarks
(pip install face_recognition_models, or --landmarks) and OpenCV (pip install opencv-python-headless). A mask is
blank if no face is found; these images are listed in DST/no_face.txt, which is written at the end.
"""

import itertools
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from common.data.files import inner, read_text, warn_of_left_out
from common.data.image_caches import in_mode, open_picture
from common.errors import InputError, require, require_positive
from common.io import locked, write_atomically
from common.progress import progress_bar
from training import run_from_command_line
from vision import masks

import numpy as np
import tyro
from joblib import Parallel, cpu_count, delayed
from PIL import Image
from skimage.feature import canny

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}


@dataclass
class Setup:
    """A command."""

    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """folder of the images (.jpg, .jpeg, .png)"""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    """folder to write to"""
    jobs: int | None = None
    """number of processes. None: one per core"""

    def about(self) -> dict[str, Any]:
        """Return what determines the images that the command makes; two runs with the same can share a folder.

        Raises:
            InputError: an option is out of range, or a package is missing.
        """
        require_positive(self, "jobs")
        return {"command": type(self).__name__.lower()}

    def draw(self, gray: Image.Image) -> Image.Image:
        """Return the picture that the command makes of a gray image, of the same size."""
        return gray


class Grayscale(Setup):
    """The luminance of each image."""


@dataclass
class Edge(Setup):
    """Canny's edges of each image."""

    sigma: float = 2.0
    """width, in pixels, of the Gaussian that first smooths the image;
    a larger one leaves fewer edges, as in the authors' code, for CelebA's 178x218; 1 does the same at half that size"""

    def about(self) -> dict[str, Any]:
        require(0 < self.sigma < 100, f"--sigma must lie between 0 and 100, it is {self.sigma}")
        return super().about() | {"sigma": self.sigma}

    def draw(self, gray: Image.Image) -> Image.Image:
        return Image.fromarray(canny(np.asarray(gray), self.sigma)).convert("L")


@dataclass
class Mask(Setup):
    """The facial features of the first face found in each image, drawn from its landmarks."""

    landmarks: Path | None = None
    """dlib's shape_predictor_68_face_landmarks.dat. None: that of the package face_recognition_models"""

    def about(self) -> dict[str, Any]:
        masks.detector_and_predictor(self.landmarks)
        return super().about() | {"landmarks": str(self.landmarks or masks.PREDICTOR), "drawn by": "OpenCV"}

    def draw(self, gray: Image.Image) -> Image.Image:
        return masks.draw(masks.find_landmarks(gray, self.landmarks), gray.size)


Command = Grayscale | Edge | Mask


def main(config: Setup) -> None:
    """Make a picture in DST of each image in SRC, with several processes; list masks without a face.

    Raises:
        InputError: SRC holds no images or an unreadable one; DST holds other images, or another process is at work
            there; see also `Setup.about`.
    """
    require(config.src.is_dir(), f"{config.src} is not a folder: give SRC, the folder of the images")
    src = inner(config.src)
    require(config.dst.resolve() != src.resolve(), f"{config.dst} holds the images themselves: give another DST")
    sources = images_in(src)
    require(len(sources) > 0, f"{config.src} holds no images ({', '.join(SUFFIXES)}): give another SRC")
    left_out = {path.name for path in {*src.glob("[!.]*")} - {*sources}}
    warn_of_left_out(src, left_out, f"images ({', '.join(SUFFIXES)})")
    about = json.dumps(config.about())
    with locked(config.dst):
        claim(config.dst, about)
        no_face = config.dst / "no_face.txt"
        no_face.unlink(missing_ok=True)
        jobs = min(config.jobs or cpu_count(), len(sources))
        made = Parallel(jobs, return_as="generator")(delayed(complete)(source, config) for source in sources)
        is_blank = list(progress_bar(made, total=len(sources), unit=" images"))
        print(f"{len(sources)} images in {config.dst}")
        if isinstance(config, Mask):
            blank = "".join(f"{source.name}\n" for source in itertools.compress(sources, is_blank))
            write_atomically(no_face, blank.encode())
            result = f"no face found in {sum(is_blank)} of {len(sources)} images"
            print(f"{result}: listed in {no_face}, treated as an absent mask" if blank else result)


def images_in(folder: Path) -> list[Path]:
    """Return the paths of the images in a folder, sorted; a name that begins with a dot is no image's."""
    return sorted(path for path in folder.glob("[!.]*") if path.suffix.lower() in SUFFIXES)


def claim(folder: Path, about: str) -> None:
    """Make a folder with an about.json that says how its images are made, or check an existing one.

    Raises:
        InputError: the folder holds other images, or images that were made with other options, or cannot be made.
    """
    path = folder / "about.json"
    if path.exists():
        earlier = read_text(path, "choose another DST", errors="replace")[:300]
        require(
            earlier == about, f"{folder} was made with {earlier!r}, not {about!r}: delete it, or choose another DST"
        )
    else:
        require(not images_in(folder), f"{folder} holds images of something else: choose another DST")
        write_atomically(path, about.encode())


def complete(source: Path, config: Setup) -> bool:
    """Make the picture of a source unless it is finished; return whether it is blank.

    Raises:
        InputError: the image is unreadable.
    """
    path = config.dst / source.name
    with open_picture(source, "repair it, or remove it") as image:
        gray = in_mode(image, "L")
    picture = finished_picture(path, source, gray.size)
    if picture is None:
        picture = config.draw(gray)
        temporary = path.with_name(path.name + ".tmp")
        picture.save(temporary, SUFFIXES[source.suffix.lower()], quality=95)
        os.replace(temporary, path)  # no fsync: a file that a power cut truncates is not taken for finished
    return picture.getextrema() == (255, 255)


def finished_picture(path: Path, source: Path, size: tuple[int, int]) -> Image.Image | None:
    """Return the image at path; None if it is missing, incomplete, older than its source, or of another size (w, h)."""
    try:
        with open_picture(path, "delete it") as image:
            is_newer = path.stat().st_mtime_ns >= source.stat().st_mtime_ns
            return image.copy() if is_newer and image.size == size else None
    except InputError:
        return None


if __name__ == "__main__":
    run_from_command_line(main, Command, __doc__)
