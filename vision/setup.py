"""Make the gray, edge and mask images of CelebA's faces, which train.py reads from DATA_DIR/{grayscale,edge,mask}.

    python setup.py grayscale data/img_align_celeba data/grayscale
    python setup.py edge data/img_align_celeba data/edge            Canny's edges, white on black
    python setup.py mask data/img_align_celeba data/mask            the parts of the face, black on white

An image of SRC gives one of its size in DST, under its name; train.py inverts masks, so that lines are bright in both.
What a stopped run has done is kept, and the same command goes on from there. edge needs scikit-image; mask needs dlib
(pip install dlib-bin) and its predictor of 68 landmarks (pip install face_recognition_models, or --landmarks). A mask
is blank where no face is found: these are listed in DST/no_face.txt, which is written when all are done.
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
from PIL import Image, ImageDraw
from scipy.spatial import ConvexHull
from tqdm import tqdm

from common.errors import InputError, require
from common.io import write_atomically
from common.training import run_from_command_line
from common.training.parallel import in_order

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG"}
CHUNK = 32  # images a process takes at a time
UNREADABLE = OSError, ValueError, SyntaxError, Image.DecompressionBombError
WIDTH = 178  # CelebA's
FINE = 4  # masks are drawn so many times larger, then reduced, for smooth lines
PREDICTOR = "shape_predictor_68_face_landmarks.dat"
JAW = slice(0, 17)
# of the 68 landmarks: eyebrows, nose, eyes, mouth
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
        """What decides how images come out; raises InputError where the command can't work."""
        require(self.jobs is None or self.jobs > 0, f"--jobs must be positive, not {self.jobs}")
        return {"command": type(self).__name__.lower()}

    @abstractmethod
    def draw(self, gray: Image.Image) -> Image.Image:
        """What becomes of an image."""


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
        require(find_spec("skimage") is not None, "edge needs scikit-image: pip install scikit-image")
        return super().about() | {"sigma": self.sigma}

    def draw(self, gray: Image.Image) -> Image.Image:
        from skimage.feature import canny

        return Image.fromarray(canny(np.asarray(gray), self.sigma)).convert("L")


@dataclass
class Mask(Setup):
    """The parts of the first face found in each image, after its landmarks."""

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
    require(config.src.is_dir(), f"{config.src} is no folder: give the one of the images")
    require(config.dst.resolve() != config.src.resolve(), f"{config.dst} holds the images themselves: give another DST")
    sources = images_in(config.src)
    require(len(sources) > 0, f"{config.src} holds no images ({', '.join(SUFFIXES)})")
    claim(config.dst, json.dumps(config.about()))
    no_face = config.dst / "no_face.txt"
    no_face.unlink(missing_ok=True)
    chunks = [sources[i : i + CHUNK] for i in range(0, len(sources), CHUNK)]
    jobs = min(config.jobs or os.cpu_count(), len(chunks))
    blank = []
    with tqdm(total=len(sources), unit=" images", disable=None) as bar:
        for done in in_order(partial(complete, config=config), chunks, jobs):
            blank += [name for name, is_blank in done.items() if is_blank]
            bar.update(len(done))
    print(f"{len(sources)} images in {config.dst}")
    if isinstance(config, Mask):
        write_atomically(no_face, "".join(f"{name}\n" for name in sorted(blank)).encode())
        found = f"no face found in {len(blank)} of {len(sources)} images"
        print(f"{found}: listed in {no_face}, treated as an absent mask" if blank else found)


def images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def claim(folder: Path, about: str) -> None:
    """Make a folder, or go on with one, for images that are made in one way, which its about.json says.

    Raises:
        InputError: it holds other images, or such that were made in another way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made ({error.strerror}): choose another DST") from error
    path = folder / "about.json"
    if path.exists():
        made = path.read_text(errors="replace")[:300]
        require(made == about, f"{folder} was made with {made!r}, not {about!r}: delete it, or choose another DST")
    else:
        require(not images_in(folder), f"{folder} holds images of something else: choose another DST")
        write_atomically(path, about.encode())


def complete(sources: Sequence[Path], config: Setup) -> dict[str, bool]:
    """Draw those images that are not there, whole and of their size, yet: {name: it is blank}.

    Raises:
        InputError: an image is unreadable; those before it are done.
    """
    blank = {}
    for source in sources:
        path = config.dst / source.name
        try:
            with Image.open(source) as image:
                drawn = whole(path, image.size, source.stat().st_mtime)
                gray = image.convert("L") if drawn is None else None
        except UNREADABLE as error:
            raise InputError(f"{source} is no readable image ({error}): mend it, or remove it") from error
        if drawn is None:
            drawn = config.draw(gray)
            temporary = path.with_name(path.name + ".tmp")
            drawn.save(temporary, SUFFIXES[source.suffix.lower()], quality=95)
            os.replace(temporary, path)  # without waiting for the disk: what a power cut can leave is not whole
        blank[source.name] = drawn.getextrema() == (255, 255)
    return blank


def whole(path: Path, size: tuple[int, int], since: float) -> Image.Image | None:
    """The image at path; None where there is none, half of one, one of another size, or older than its source."""
    try:
        if path.stat().st_mtime < since:
            return None
        with Image.open(path) as image:
            image.load()
    except UNREADABLE:
        return None
    return image if image.size == size else None


def predictor_file(landmarks: Path | None) -> Path:
    """The file that is given; by default that of an installed package.

    Raises:
        InputError: there is no such package.
    """
    if landmarks is not None:
        return landmarks
    package = find_spec("face_recognition_models")  # not imported, since that needs setuptools' old pkg_resources
    install = "pip install face_recognition_models, or give --landmarks PATH"
    require(package is not None, f"mask needs dlib's predictor of landmarks: {install}")
    return Path(package.origin).parent / "models" / PREDICTOR


@cache
def detector_and_predictor(landmarks: Path | None) -> tuple[Any, Any]:
    """dlib's detector of faces, and its predictor of landmarks.

    Raises:
        InputError: dlib is not there, or the file is no predictor of 68 landmarks.
    """
    try:
        import dlib
    except ImportError as error:
        raise InputError(f"mask needs dlib ({error}): pip install dlib-bin") from error
    path = predictor_file(landmarks)
    try:
        predictor = dlib.shape_predictor(os.fspath(path))
    except RuntimeError as error:
        raise InputError(f"{path} is missing, or no predictor of landmarks: give dlib's {PREDICTOR}") from error
    n = predictor(np.zeros((8, 8), np.uint8), dlib.rectangle(0, 0, 7, 7)).num_parts
    require(n == 68, f"{path} predicts {n} landmarks, not 68: give dlib's {PREDICTOR}")
    return dlib.get_frontal_face_detector(), predictor


def find_landmarks(gray: Image.Image, landmarks: Path | None) -> np.ndarray | None:
    """The landmarks (68, 2) of the first face found, x and y in the image's pixels; None where there is none."""
    detect, predict = detector_and_predictor(landmarks)
    # landmarks of faces at half of CelebA's size are 1.2 of its pixels off those at full size, enlarged first 0.7
    scale = math.ceil(WIDTH / min(gray.size))
    pixels = np.asarray(gray.resize((gray.width * scale, gray.height * scale), Image.Resampling.BICUBIC))
    faces = detect(pixels, 1)  # 1: enlarged twofold, for smaller faces
    if len(faces) == 0:
        return None
    points = np.array([(point.x, point.y) for point in predict(pixels, faces[0]).parts()])
    return (points + 0.5) / scale - 0.5


def face(points: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    """Convex hulls of a face's parts, and the line of its jaw, black on white; blank without a face.

    Args:
        points: the landmarks (68, 2), x and y.
        size: width and height.
    """
    image = Image.new("L", (size[0] * FINE, size[1] * FINE), 255)
    if points is not None:
        pen = ImageDraw.Draw(image)
        points = (points + 0.5) * FINE - 0.5
        for part in PARTS:
            # joggled (QJ), since the landmarks of a closed eye may lie on one line
            hull = ConvexHull(points[part], qhull_options="QJ").vertices
            pen.polygon(points[part][hull].flatten().tolist(), fill=0)
        pen.line(points[JAW].flatten().tolist(), fill=0, width=2 * FINE, joint="curve")
    return image.reduce(FINE)


if __name__ == "__main__":
    run_from_command_line(main, Command, __doc__)
