"""Make the gray, edge and mask images of CelebA's faces, which train.py reads from DATA_DIR/{grayscale,edge,mask}.

    python setup.py grayscale data/img_align_celeba data/grayscale
    python setup.py edge data/img_align_celeba data/edge            Canny's edges, white on black
    python setup.py mask data/img_align_celeba data/mask            the facial features, black on white

Each image of SRC gives one of the same name and size in DST; train.py inverts masks, so that lines are bright in both.
A stopped run keeps what it has written, and the same command continues it. mask needs dlib
(pip install dlib-bin) and its predictor of 68 landmarks (pip install face_recognition_models, or --landmarks). A mask
is blank if no face is found; these images are listed in DST/no_face.txt, which is written at the end.
"""

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from joblib import cpu_count
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull

from common import distributed
from common.data.files import read_text
from common.data.pictures import open_picture
from common.errors import InputError, require, require_positive
from common.io import locked, write_atomically
from training import run_from_command_line
from training.parallel import in_order

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
CHUNK = 32  # images that a process takes at a time
WIDTH = 178  # of CelebA's images, in pixels
FINE = 4  # masks are drawn FINE times larger and then reduced, for smooth lines
PREDICTOR = "shape_predictor_68_face_landmarks.dat"
JAW = slice(0, 17)
# the landmarks of the eyebrows, nose, eyes and mouth
PARTS = slice(17, 22), slice(22, 27), slice(27, 36), slice(36, 42), slice(42, 48), slice(48, 68)


@dataclass
class Setup(ABC):
    """A command."""

    src: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="SRC")]]
    """folder of the images (.jpg, .jpeg, .png)"""
    dst: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DST")]]
    """folder to write to"""
    jobs: int | None = None
    """number of processes. Default: one per core"""

    def about(self) -> dict[str, Any]:
        """Return what determines the images that the command makes; two runs with the same can share a folder.

        Raises:
            InputError: an option is out of range, or a package is missing.
        """
        require_positive(self, "jobs")
        return {"command": type(self).__name__.lower()}

    @abstractmethod
    def draw(self, gray: Image.Image) -> Image.Image:
        """Return the picture that the command makes of a gray image, of the same size."""


class Grayscale(Setup):
    """The luminance of each image."""

    def draw(self, gray: Image.Image) -> Image.Image:
        return gray


@dataclass
class Edge(Setup):
    """Canny's edges of each image."""

    sigma: float = 2.0
    """width, in pixels, of the Gaussian that first smooths the image; a larger one leaves fewer edges. Default: as in
    the authors' code, for CelebA's 178x218; 1 does the same at half that size"""

    def about(self) -> dict[str, Any]:
        require(0 < self.sigma < 100, f"--sigma must lie between 0 and 100, it is {self.sigma}")
        return super().about() | {"sigma": self.sigma}

    def draw(self, gray: Image.Image) -> Image.Image:
        from skimage.feature import canny

        return Image.fromarray(canny(np.asarray(gray), self.sigma)).convert("L")


@dataclass
class Mask(Setup):
    """The facial features of the first face found in each image, drawn from its landmarks."""

    landmarks: Path | None = None
    """dlib's shape_predictor_68_face_landmarks.dat. Default: that of the package face_recognition_models"""

    def about(self) -> dict[str, Any]:
        detector_and_predictor(self.landmarks)
        with open(predictor_file(self.landmarks), "rb") as file:
            return super().about() | {"landmarks sha256": hashlib.file_digest(file, "sha256").hexdigest()}

    def draw(self, gray: Image.Image) -> Image.Image:
        return face(find_landmarks(gray, self.landmarks), gray.size)


Command = Grayscale | Edge | Mask


def main(config: Setup) -> None:
    """Make a picture in DST of each image in SRC, with several processes; list masks without a face.

    Raises:
        InputError: SRC holds no images or an unreadable one; DST holds other images, or another process is at work
            there; see also `Setup.about`.
    """
    require(config.src.is_dir(), f"{config.src} is not a folder: give SRC, the folder of the images")
    require(config.dst.resolve() != config.src.resolve(), f"{config.dst} holds the images themselves: give another DST")
    sources = images_in(config.src)
    require(len(sources) > 0, f"{config.src} holds no images ({', '.join(SUFFIXES)}): give another SRC")
    about = json.dumps(config.about())
    with locked(config.dst):
        claim(config.dst, about)
        make_all(sources, config)


def make_all(sources: Sequence[Path], config: Setup) -> None:
    """Make the pictures that DST lacks, and the list of masks without a face.

    Raises:
        InputError: an image is unreadable.
    """
    no_face = config.dst / "no_face.txt"
    no_face.unlink(missing_ok=True)
    chunks = [sources[i : i + CHUNK] for i in range(0, len(sources), CHUNK)]
    jobs = min(config.jobs or cpu_count(), len(chunks))
    blank = []
    with distributed.progress(total=len(sources), unit=" images") as bar:
        for done in in_order(partial(complete, config=config), chunks, jobs):
            blank += [name for name, is_blank in done.items() if is_blank]
            bar.update(len(done))
    print(f"{len(sources)} images in {config.dst}")
    if isinstance(config, Mask):
        write_atomically(no_face, "".join(f"{name}\n" for name in sorted(blank)).encode())
        result = f"no face found in {len(blank)} of {len(sources)} images"
        print(f"{result}: listed in {no_face}, treated as an absent mask" if blank else result)


def images_in(folder: Path) -> list[Path]:
    """Return the paths of the images in a folder, sorted."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


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


def complete(sources: Sequence[Path], config: Setup) -> dict[str, bool]:
    """Make the pictures of the sources that are not finished yet; return whether each picture is blank, by name.

    Raises:
        InputError: an image is unreadable; the pictures of those before it are written.
    """
    blank = {}
    for source in sources:
        path = config.dst / source.name
        with open_picture(source, "repair it, or remove it") as image:
            picture = finished_picture(path, image.size, source.stat().st_mtime)
            gray = image.convert("L") if picture is None else None
        if picture is None:
            picture = config.draw(gray)
            temporary = path.with_name(path.name + ".tmp")
            picture.save(temporary, SUFFIXES[source.suffix.lower()], quality=95)
            os.replace(temporary, path)  # no fsync: a file that a power cut truncates is not taken for finished
        blank[source.name] = picture.getextrema() == (255, 255)
    return blank


def finished_picture(path: Path, size: tuple[int, int], source_time: float) -> Image.Image | None:
    """Return the image at path; None if it is missing, incomplete, of another size, or older than its source.

    Args:
        size: expected width and height in pixels.
        source_time: when the source was modified, in seconds since the epoch.
    """
    if not path.exists() or path.stat().st_mtime < source_time:
        return None
    try:
        with open_picture(path, "delete it") as image:
            return image.copy() if image.size == size else None
    except InputError:
        return None


def predictor_file(landmarks: Path | None) -> Path:
    """Return the file of dlib's predictor: the given one, or that of the package face_recognition_models.

    Raises:
        InputError: the package is not installed.
    """
    if landmarks is not None:
        return landmarks
    package = find_spec("face_recognition_models")  # not imported, since that needs setuptools' old pkg_resources
    install = "pip install face_recognition_models, or give --landmarks PATH"
    require(package is not None, f"mask needs dlib's predictor of landmarks: {install}")
    return Path(package.origin).parent / "models" / PREDICTOR


@cache
def detector_and_predictor(landmarks: Path | None) -> tuple[Any, Any]:
    """Return dlib's detector of faces, and its predictor of landmarks, which is read from the given file.

    Raises:
        InputError: dlib is not installed, or the file is missing or not a predictor of 68 landmarks.
    """
    try:
        import dlib
    except ImportError as error:
        raise InputError(f"mask needs dlib ({error}): pip install dlib-bin") from error
    path = predictor_file(landmarks)
    try:
        predictor = dlib.shape_predictor(os.fspath(path))
    except RuntimeError as error:
        raise InputError(f"{path} is missing, or not a predictor of landmarks: give dlib's {PREDICTOR}") from error
    n = predictor(np.zeros((8, 8), np.uint8), dlib.rectangle(0, 0, 7, 7)).num_parts
    require(n == 68, f"{path} predicts {n} landmarks, not 68: give dlib's {PREDICTOR}")
    return dlib.get_frontal_face_detector(), predictor


def find_landmarks(gray: Image.Image, landmarks: Path | None) -> np.ndarray | None:
    """Return the landmarks (68, 2) of the first face found, x and y in the image's pixels; None if there is no face.

    Args:
        landmarks: the file of dlib's predictor; None for the installed one.
    """
    detect, predict = detector_and_predictor(landmarks)
    # at half of CelebA's size landmarks are off by 1.2 of its pixels; if the image is enlarged first, by 0.7
    scale = math.ceil(WIDTH / min(gray.size))
    pixels = np.asarray(gray.resize((gray.width * scale, gray.height * scale), Image.Resampling.BICUBIC))
    faces = detect(pixels, 1)  # 1: enlarged twofold, for smaller faces
    if len(faces) == 0:
        return None
    points = np.array([(point.x, point.y) for point in predict(pixels, faces[0]).parts()])
    return (points + 0.5) / scale - 0.5


def face(points: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    """Draw the convex hulls of a face's features, and its jaw line, black on white; blank without a face.

    Args:
        points: the landmarks (68, 2), x and y in pixels; None without a face.
        size: width and height in pixels.
    """
    image = Image.new("L", (size[0] * FINE, size[1] * FINE), 255)
    if points is not None:
        pen = ImageDraw.Draw(image)
        points = (points + 0.5) * FINE - 0.5
        for part in PARTS:
            # QJ joggles the points, since the landmarks of a closed eye may lie on one line
            hull = ConvexHull(points[part], qhull_options="QJ").vertices
            pen.polygon(points[part][hull].flatten().tolist(), fill=0)
        pen.line(points[JAW].flatten().tolist(), fill=0, width=2 * FINE, joint="curve")
    return image.reduce(FINE)


if __name__ == "__main__":
    run_from_command_line(main, Command, __doc__)
