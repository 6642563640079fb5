"""vision/setup.py, which makes gray, edge and mask images of faces, and vision/transforms.py."""

import sys
from types import SimpleNamespace

from tests.helpers.scripts import run_script
from vision import masks, setup
from vision.transforms import obscure, picture, watermark

import numpy as np
import pytest
import torch
from PIL import Image


def run(*args):
    run_script(setup, [str(arg) for arg in args])


def refused(capsys, *args):
    """The one line that the command prints where it refuses."""
    with pytest.raises(SystemExit) as exit_:
        run(*args)
    err = capsys.readouterr().err
    assert exit_.value.code == 2 and err.splitlines()[-1].startswith("error: ")
    return err


def noise(n):
    """Images of several sizes, kinds and suffixes: {name: image}."""
    rng = np.random.default_rng(0)
    sizes = [(20 + i, 30) for i in range(n)]
    names = [f"{i:03d}{['.jpg', '.png', '.JPEG', '.PNG'][i % 4]}" for i in range(n)]
    return {
        name: Image.fromarray(rng.integers(0, 256, (h, w, 3), np.uint8))
        for name, (w, h) in zip(names, sizes, strict=True)
    }


@pytest.fixture
def faces(tmp_path):
    """A folder of images, and of what is none."""
    src = tmp_path / "src"
    src.mkdir()
    for name, image in noise(6).items():
        image.save(src / name, quality=95)
    (src / "notes.txt").write_text("no image")
    return src


def state(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_gray_images_have_the_names_sizes_and_luminance_of_theirs(faces, tmp_path):
    run("grayscale", faces, tmp_path / "new" / "gray")
    made = {path.name: path for path in (tmp_path / "new" / "gray").iterdir()}
    assert set(made) == {*noise(6), "about.json", ".lock"}
    for name in noise(6):
        with Image.open(faces / name) as source, Image.open(made[name]) as gray:
            assert (gray.size, gray.mode, gray.format) == (source.size, "L", source.format)
            error = np.asarray(gray, float) - np.asarray(source.convert("L"), float)
            assert abs(error).max() <= (0 if gray.format == "PNG" else 12)


def test_what_is_done_is_left_alone_and_what_is_not_whole_is_done_again(faces, tmp_path):
    dst = tmp_path / "gray"
    run("grayscale", faces, dst)
    first = state(dst)
    run("grayscale", faces, dst)
    assert state(dst) == first, "nothing is written twice"
    (dst / "000.jpg").unlink()
    (dst / "001.png").write_bytes(first["001.png"][1][:-40])
    Image.new("L", (3, 3)).save(dst / "002.JPEG")
    (dst / "000.jpg.tmp").write_bytes(b"half")
    run("grayscale", faces, dst)
    again = state(dst)
    assert {name: content for name, (_, content) in again.items()} == {n: content for n, (_, content) in first.items()}
    assert {name for name in first if again[name] != first[name]} == {"000.jpg", "001.png", "002.JPEG"}


def test_views_lie_as_their_photographs_do_and_are_as_new(faces, tmp_path, capsys):
    upright = np.zeros((40, 24), np.uint8)
    upright[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("000.jpg", "001.png"):
        Image.fromarray(upright).rotate(90, expand=True).save(faces / name, exif=exif, quality=95)
    (faces / "._000.jpg").write_bytes(b"no image")
    dst = tmp_path / "gray"
    run("grayscale", faces, dst)
    left_out = f"warning: left out of {faces}, being no images (.jpg, .jpeg, .png): 'notes.txt' (1 in all)\n"
    assert left_out in capsys.readouterr().err
    for name in ("000.jpg", "001.png"):
        with Image.open(dst / name) as gray:
            assert gray.getexif().get(0x0112, 1) == 1
            assert np.abs(np.asarray(gray, float) - upright).mean() < 3
    first = state(dst)
    run("grayscale", faces, dst)
    assert state(dst) == first, "the sizes that are compared are those of the upright photographs"
    Image.new("RGB", (23, 30), (9, 9, 9)).save(faces / "003.PNG")
    run("grayscale", faces, dst)
    assert {name for name in first if state(dst)[name] != first[name]} == {"003.PNG"}, "its photograph is newer"
    with Image.open(dst / "003.PNG") as gray:
        assert gray.getextrema() == (9, 9)
    (tmp_path / "outer" / "src").parent.mkdir()
    faces.rename(tmp_path / "outer" / "src")
    (tmp_path / "outer").rename(faces)
    run("grayscale", faces, tmp_path / "nested")
    assert {path.name for path in (tmp_path / "nested").iterdir()} == {*noise(6), "about.json", ".lock"}


def test_unreadable_images_are_named_and_what_is_made_is_kept(faces, tmp_path, capsys):
    content = (faces / "004.jpg").read_bytes()
    (faces / "004.jpg").write_bytes(content[: len(content) // 2])
    error = refused(capsys, "grayscale", faces, tmp_path / "gray")
    assert f"{faces / '004.jpg'} is damaged or not an image" in error
    made = state(tmp_path / "gray")
    assert "004.jpg" not in made
    (faces / "004.jpg").write_bytes(content)
    run("grayscale", faces, tmp_path / "gray")
    assert made.items() <= state(tmp_path / "gray").items()


def test_options_do_not_mix(faces, tmp_path, capsys):
    run("edge", faces, tmp_path / "edge")
    before = state(tmp_path / "edge")
    error = refused(capsys, "edge", faces, tmp_path / "edge", "--sigma", 3)
    assert '"sigma": 2.0' in error and '"sigma": 3.0' in error and "delete it, or choose another DST" in error
    assert '"command": "grayscale"' in refused(capsys, "grayscale", faces, tmp_path / "edge")
    assert state(tmp_path / "edge") == before
    (tmp_path / "edge" / "about.json").write_bytes(b"\xff\n")
    assert "delete it" in refused(capsys, "edge", faces, tmp_path / "edge")


def test_edges_are_bright_and_lie_where_the_picture_changes(tmp_path):
    square = np.zeros((60, 70), np.uint8)
    square[20:40, 25:50] = 200
    edges = np.asarray(setup.Edge(tmp_path, tmp_path).draw(Image.fromarray(square)))
    assert edges.shape == square.shape and set(np.unique(edges)) == {0, 255}
    y, x = np.nonzero(edges)
    distance = np.maximum(abs(y - 29.5) - 9.5, abs(x - 37) - 12)  # from the outermost pixels of the square
    assert abs(distance).max() <= 1.5
    sides = edges[:30, 37], edges[30:, 37], edges[30, :37], edges[30, 37:]
    assert [side.any() for side in sides] == [True] * 4
    rough = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70), np.uint8))
    counts = [(np.asarray(setup.Edge(tmp_path, tmp_path, sigma=s).draw(rough)) > 0).sum() for s in (1, 2, 3)]
    assert counts[0] > 1.5 * counts[1] > 2 * counts[2], "smoothed more, fewer"


# of a face that fills (100, 120): jaw, eyebrows, nose, eyes, mouth
ANGLES = np.linspace(0, 2 * np.pi, 7)[:6]
LANDMARKS = np.concatenate(
    [
        [(50 - 40 * np.cos(t), 60 + 45 * np.sin(t)) for t in np.linspace(0, np.pi, 17)],
        [(x, 42 - 4 * np.sin((x - 20) / 20 * np.pi)) for x in np.linspace(20, 40, 5)],
        [(x, 42 - 4 * np.sin((x - 60) / 20 * np.pi)) for x in np.linspace(60, 80, 5)],
        [(50, y) for y in (50, 55, 60, 65)] + [(x, 70) for x in (42, 46, 50, 54, 58)],
        [(30 + 7 * np.cos(t), 50 + 3 * np.sin(t)) for t in ANGLES],
        [(x, 50) for x in range(63, 75, 2)],  # closed: on one line
        [(50 + 15 * np.cos(t), 85 + 6 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 13)[:12]],
        [(50 + 9 * np.cos(t), 85 + 2 * np.sin(t)) for t in np.linspace(0, 2 * np.pi, 9)[:8]],
    ]
)


def test_masks_have_the_parts_filled_and_a_line_for_the_jaw():
    mask = masks.draw(LANDMARKS, (100, 120))
    assert (mask.size, mask.mode) == ((100, 120), "L")
    ink = 1 - np.asarray(mask) / 255
    filled = {"mouth": (50, 85), "eyebrow": (30, 40), "the other": (70, 40), "eye": (30, 50), "nose": (50, 67)}
    assert {name: ink[y, x] for name, (x, y) in filled.items()} == dict.fromkeys(filled, 1)
    assert (ink[49:52, 64:73].sum(axis=0) > 0.2).all(), "a closed eye is a line"
    white = {"cheek": (25, 70), "forehead": (50, 20), "between the eyes": (50, 45), "under the mouth": (50, 97)}
    assert {name: ink[y, x] for name, (x, y) in white.items()} == dict.fromkeys(white, 0)
    assert ink[98:, 50].sum() == 3, "OpenCV draws the jaw's line of two pixels three wide at the chin"
    assert ink[62, :20].sum() == 3, "and at the ears"
    assert ink[98:, 50] @ np.arange(98, 120) / ink[98:, 50].sum() == pytest.approx(105, abs=0.3)
    assert ink[:58, :18].sum() == ink[60, 15:40].sum() == 0, "it is open, and not filled"


def test_masks_without_a_face_are_blank():
    assert masks.draw(None, (30, 40)).getextrema() == (255, 255)


def test_faces_not_found_are_listed_also_after_a_resumed_run(faces, tmp_path, monkeypatch, capsys):
    found = {(20 + i, 30) for i in (0, 3)}  # by their sizes
    looked = []

    def find(gray, landmarks):
        looked.append(gray.size)
        return LANDMARKS / 5 if gray.size in found else None

    monkeypatch.setattr(masks, "find_landmarks", find)
    monkeypatch.setattr(setup.Mask, "about", lambda self: {"command": "mask"})
    dst, names = tmp_path / "mask", list(noise(6))
    run("mask", faces, dst, "--jobs", 1)
    no_face = [name for i, name in enumerate(names) if i not in (0, 3)]
    assert (dst / "no_face.txt").read_text().split() == no_face
    listed = f"no face found in 4 of 6 images: listed in {dst / 'no_face.txt'}, treated as an absent mask\n"
    assert capsys.readouterr().out.endswith(listed)
    for i, name in enumerate(names):
        with Image.open(dst / name) as mask:
            assert mask.size == (20 + i, 30) and (mask.getextrema() == (255, 255)) == (name in no_face)

    (dst / names[1]).unlink()
    (dst / names[3]).unlink()
    (dst / "no_face.txt").unlink()
    looked.clear()
    run("mask", faces, dst, "--jobs", 1)
    assert looked == [(21, 30), (23, 30)] and (dst / "no_face.txt").read_text().split() == no_face

    (faces / names[5]).write_bytes(b"")
    refused(capsys, "mask", faces, dst)
    assert not (dst / "no_face.txt").exists(), "it is the list of a finished run"


def test_what_is_not_installed_is_said(faces, tmp_path, monkeypatch, capsys):
    for module in ("dlib", "face_recognition_models"):
        monkeypatch.setitem(sys.modules, module, None)
    masks.detector_and_predictor.cache_clear()
    assert "pip install opencv-python-headless dlib-bin" in refused(capsys, "mask", faces, tmp_path / "new")
    monkeypatch.setitem(sys.modules, "dlib", object())
    assert "face_recognition_models, or give --landmarks PATH" in refused(capsys, "mask", faces, tmp_path / "new")
    run("grayscale", faces, tmp_path / "gray")
    assert not (tmp_path / "new").exists()


class Box:
    """What stands for dlib's detector and predictor: the bright box of an image is its face, with a corner each 17."""

    def __call__(self, pixels, upsampling):
        y, x = np.nonzero(pixels > 128)
        return [(x.min(), y.min(), x.max(), y.max())] if len(x) else []

    def predict(self, pixels, box):
        x, y, right, bottom = map(int, box)
        corners = [(x, y), (right, y), (right, bottom), (x, bottom)]
        return SimpleNamespace(parts=lambda: [SimpleNamespace(x=x, y=y) for x, y in corners for _ in range(17)])


@pytest.mark.parametrize("scale", [1, 2, 3])
def test_landmarks_are_those_of_the_image_at_its_own_size(monkeypatch, scale):
    seen = []

    def detect(pixels, upsampling):
        seen.append(pixels.shape)
        return Box()(pixels, upsampling)

    monkeypatch.setattr(masks, "detector_and_predictor", lambda landmarks: (detect, Box().predict))
    image = np.zeros((109 * 2 // scale, 178 // scale), np.uint8)
    image[10:31, 20:41] = 255
    points = masks.find_landmarks(Image.fromarray(image), None)
    assert points[::17] == pytest.approx(np.array([(20, 10), (40, 10), (40, 30), (20, 30)]), abs=0.5)
    assert min(seen[0]) >= 178 and seen[0][0] % image.shape[0] == 0, "enlarged by a whole factor"
    assert masks.find_landmarks(Image.fromarray(np.zeros_like(image)), None) is None


def test_obscured_images_are_black_on_the_right():
    images = torch.randint(1, 256, (2, 3, 64, 64), dtype=torch.uint8)
    before = images.clone()
    obscured = obscure(images)
    assert obscured.dtype == images.dtype and torch.equal(images, before)
    assert torch.equal(obscured[..., :32], images[..., :32]) and not obscured[..., 32:].any()


@pytest.mark.parametrize("size", [64, 100])
def test_watermarks_lie_over_the_image(size):
    images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    before = images.clone()
    marked, marked_float = watermark(images), watermark(images / 255)
    assert torch.equal(images, before)
    assert (marked.dtype, marked_float.dtype) == (torch.uint8, torch.float32)
    assert marked.shape == marked_float.shape == images.shape
    assert (marked - 255 * marked_float).abs().max() < 0.51
    assert marked_float.min() >= 0 and marked_float.max() <= 1
    # composited by another hand
    rgba = picture(size)
    for image, ours in zip(images, marked, strict=True):
        face = Image.fromarray(image.permute(1, 2, 0).numpy())
        face.paste(rgba, mask=rgba)
        assert abs(np.asarray(face, float) - ours.permute(1, 2, 0).double().numpy()).max() <= 1
    alpha = torch.from_numpy(np.array(rgba))[..., 3]
    assert (alpha == 0).any() and torch.equal(marked[..., alpha == 0], images[..., alpha == 0])
    assert 0.1 < alpha.float().mean() / 255 < 0.4 and alpha.max() < 255, "the face remains visible"
    black = watermark(torch.zeros(1, 3, size, size))
    assert (black[0, :, alpha > 10].amax(dim=0) > 0).all(), "white and red show on black"
