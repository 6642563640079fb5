"""Pictures: their size, their format, and which way up they are."""

import io

import pytest
from PIL import ExifTags, Image, ImageOps

from common.data.pictures import open_picture, upright
from common.errors import InputError
from tests.helpers.small_files import PHOTOGRAPH, picture


@pytest.mark.parametrize("orientation", range(10))
def test_pictures_lie_as_their_camera_says(orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    with open_picture(picture("PNG", exif=exif), "choose another", "it") as image:
        turned = upright(image)
    assert turned.tobytes() == ImageOps.exif_transpose(image).tobytes()
    assert turned.size == (PHOTOGRAPH.shape[:2] if orientation in (5, 6, 7, 8) else PHOTOGRAPH.shape[1::-1])


def test_damaged_exif_is_no_traceback():
    content = picture("WEBP")  # turned by a quarter
    ratios, other = b"\0\x02\0\x05\0\0\0\x03", b"\0\x02\0\x01\0\0\0\x03"
    assert content.count(ratios) == 1
    with open_picture(content.replace(ratios, other), "choose another", "it") as image:
        with pytest.raises(TypeError, match="abs"):
            ImageOps.exif_transpose(image)
        assert upright(image).size == PHOTOGRAPH.shape[:2]


@pytest.mark.parametrize("format", ["TIFF", "BMP", "DDS", "PPM", "ICO"])
def test_formats_that_no_dataset_has_are_refused(format):
    file = io.BytesIO()
    Image.fromarray(PHOTOGRAPH).save(file, format)
    with pytest.raises(InputError, match=r"^it is not a readable image \(PNG, JPEG, WEBP, GIF\): choose another$"):
        open_picture(file.getvalue(), "choose another", "it").__enter__()


def test_what_fails_while_a_picture_is_used_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(picture("PNG")[:-200])
    with (
        pytest.raises(InputError, match=r"a.png is not a readable image \(.*truncated.*\): repair it"),
        open_picture(path, "repair it") as image,
    ):
        image.load()
