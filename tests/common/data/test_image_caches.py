"""Pictures: their size, format, depth, transparency and orientation; and caches of them."""

import io
import os

from common.data.image_caches import Kind, in_mode, load, open_picture
from common.errors import InputError
from tests.helpers.small_files import PHOTOGRAPH, picture, png

import numpy as np
import pytest
from PIL import Image


@pytest.mark.parametrize(("width", "height"), [(8001, 8000), (13_000, 13_000)])
def test_pictures_have_at_most_64_megapixels(width, height):
    with pytest.raises(InputError, match=r"it is damaged or not an image .*pixels.*: choose another"):
        open_picture(png(b"\0", width, height), "choose another", "it").__enter__()


@pytest.mark.parametrize("format", ["TIFF", "BMP", "DDS", "PPM", "ICO"])
def test_formats_that_no_dataset_has_are_refused(format):
    file = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(file, format)
    with pytest.raises(
        InputError, match=r"^it is damaged or not an image in PNG, JPEG, WEBP or GIF .*: choose another$"
    ):
        open_picture(file.getvalue(), "choose another", "it").__enter__()


def test_what_fails_while_a_picture_is_used_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(picture("PNG")[:-200])
    with (
        pytest.raises(InputError, match=r"a.png is damaged or not an image .*truncated.*\): repair it"),
        open_picture(path, "repair it") as image,
    ):
        image.load()


def gray(*values, kind=np.uint8):
    return Image.fromarray(np.array([values], kind))


def turned(image, **_):
    """A picture that lies on its side, with the orientation that says so."""
    exif = image.getexif()
    exif[0x0112] = 6
    return image.transpose(Image.Transpose.ROTATE_90), {"exif": exif}


PALETTE = gray(0, 1).convert("P")
PALETTE.putpalette([9, 9, 9, 200, 200, 200])
KINDS = {  # of a picture of one row: what is saved, how, and the values that are read
    "16 bits": (gray(0, 257, 32896, 65535, kind=np.uint16), {}, [0, 1, 128, 255]),
    "12 bits": (gray(0, 16, 2056, 4095, kind=np.uint16), {}, [0, 1, 128, 255]),
    "a transparent gray of 16 bits": (gray(500, 65535, kind=np.uint16), {"transparency": 500}, [255, 255]),
    "turned, 16 bits": (*turned(gray(0, 65535, kind=np.uint16)), [0, 255]),
    "turned": (*turned(gray(0, 100, 255)), [0, 100, 255]),
    "LA": (Image.merge("LA", [gray(0, 0, 90), gray(0, 255, 255)]), {}, [255, 0, 90]),
    "RGBA": (Image.merge("RGBA", [gray(0, 0, 100)] * 3 + [gray(0, 255, 51)]), {}, [255, 0, 224]),
    "RGB with a transparent colour": (gray(7, 90).convert("RGB"), {"transparency": (7, 7, 7)}, [255, 90]),
    "a palette with a transparent colour": (PALETTE, {"transparency": b"\0\xff"}, [255, 200]),
}


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("name", KINDS)
def test_pictures_are_read_upright_on_white_and_in_8_bits(name, mode):
    image, options, expected = KINDS[name]
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    with open_picture(file.getvalue(), "choose another", "it") as opened:
        pixels = np.asarray(in_mode(opened, mode))
    assert pixels.shape == ((1, len(expected), 3) if mode == "RGB" else (1, len(expected)))
    assert pixels.reshape(len(expected), -1)[:, 0].tolist() == expected


@pytest.mark.parametrize("newer", [False, True], ids=["of another size", "of another time"])
def test_a_cache_of_images_that_were_replaced_is_refused(tmp_path, newer):
    for name, value in (("a.png", 10), ("b.png", 20)):
        Image.new("L", (64, 64), value).save(tmp_path / name)
    before, kind = (tmp_path / "b.png").stat(), Kind("L")
    cache = tmp_path / "cache.npy"
    load(tmp_path, ["a.png", "b.png"], cache, kind)
    assert load(tmp_path, ["a.png", "b.png"], cache, kind)[:, 0, 0, 0].tolist() == [10, 20]
    Image.new("L", (64, 64) if newer else (90, 70), 30).save(tmp_path / "b.png")
    os.utime(tmp_path / "b.png", ns=(0, before.st_mtime_ns + newer))
    with pytest.raises(InputError, match=r"cache.npy holds other images than .*: delete cache.npy and cache.json"):
        load(tmp_path, ["a.png", "b.png"], cache, kind)
    for file in ("cache.npy", "cache.json"):
        (tmp_path / file).unlink()
    assert load(tmp_path, ["a.png", "b.png"], cache, kind)[:, 0, 0, 0].tolist() == [10, 30]


def test_suffixes_may_be_in_another_case(tmp_path):
    for name, value in (("a.PNG", 10), ("b.png", 20), ("b.PNG", 30)):
        Image.new("L", (64, 64), value).save(tmp_path / name)
    assert load(tmp_path, ["a.png", "b.png"], tmp_path / "cache.npy", Kind("L"))[:, 0, 0, 0].tolist() == [10, 20]
