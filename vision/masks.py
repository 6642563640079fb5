"""Masks of faces: dlib's landmarks, and the facial features that OpenCV draws from them."""

import math
import os
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from common.errors import InputError, install, require

import numpy as np
from PIL import Image

WIDTH = 178  # of CelebA's images, in pixels
PREDICTOR = "shape_predictor_68_face_landmarks.dat"
JAW = slice(0, 17)
# the landmarks of the eyebrows, nose, eyes and mouth
PARTS = slice(17, 22), slice(22, 27), slice(27, 36), slice(36, 42), slice(42, 48), slice(48, 68)


def predictor_file(landmarks: Path | None) -> Path:
    """Return the file of dlib's predictor: the given one, or that of the package face_recognition_models.

    Raises:
        InputError: the package is not installed.
    """
    if landmarks is not None:
        return landmarks
    package = find_spec("face_recognition_models")  # not imported, since that needs setuptools' old pkg_resources
    missing = "mask needs dlib's predictor of landmarks: pip install face_recognition_models, or give --landmarks PATH"
    require(package is not None, missing)
    return Path(package.origin).parent / "models" / PREDICTOR


@cache
def detector_and_predictor(landmarks: Path | None) -> tuple[Any, Any]:
    """Return dlib's detector of faces, and its predictor of landmarks, which is read from the given file.

    Raises:
        InputError: a package is not installed, or the file is missing or not a predictor of 68 landmarks.
    """
    try:
        import cv2  # noqa: F401 (`draw` needs it)
        import dlib
    except ImportError as error:
        raise InputError(
            f"mask needs OpenCV and dlib ({error}): {install('opencv-python-headless dlib-bin')}"
        ) from error
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


def draw(points: np.ndarray | None, size: tuple[int, int]) -> Image.Image:
    """Draw the convex hulls of a face's features, and its jaw line, black on white; blank without a face.

    Args:
        points: the landmarks (68, 2), x and y in pixels; None without a face.
        size: width and height in pixels.
    """
    import cv2

    image = np.full((size[1], size[0]), 255, np.uint8)
    if points is not None:
        points = points.round().astype(np.int32)
        for part in PARTS:
            cv2.drawContours(image, [cv2.convexHull(points[part])], -1, 0, cv2.FILLED)
        cv2.polylines(image, [points[JAW]], isClosed=False, color=0, thickness=2)
    return Image.fromarray(image)
