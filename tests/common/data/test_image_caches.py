"""Pictures: their size and their format."""

import io

import pytest
from PIL import Image

from common.data.image_caches import open_picture
from common.errors import InputError
from tests.helpers.small_files import PHOTOGRAPH, picture, png


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
