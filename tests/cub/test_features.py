"""Features of CUB's photographs: ResNet-101, its training on birds, and what is kept of both."""

import os
import shutil
import urllib.error
from types import SimpleNamespace

from common.checkpoints import load
from common.data.torchvision_import import models, transforms
from common.errors import InputError
from cub import feature_files, feature_network, features
from cub.feature_files import about, features_of_file, load_features, nearest, network_of
from cub.feature_network import MEAN, STD, Recipe, extractor, features_of, random_crops
from cub.features import Config
from tests.helpers.resnet import small_resnet

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

CPU = torch.device("cpu")
COLOURS = {"001.Red": (220, 30, 30), "002.Green": (30, 200, 40), "003.Blue": (30, 40, 220), "004.White": (240,) * 3}
RECIPE = Recipe(size=16, train_size=12, epochs=3, batch_size=4, lr=0.05, seed=0)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(feature_network, "resnet101", small_resnet)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six photographs of each colour, none like another."""
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for of_class, colour in COLOURS.items():
        (root / of_class).mkdir()
        for i in range(6):
            pixels = np.clip(generator.normal(colour, 20, (40, 50 + i, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / of_class / f"{i}.png")
    return root


@pytest.fixture
def found(folder, monkeypatch):
    """Green is the test class, white has no captions."""
    names = {of_class: [f"{of_class}/{i}.png" for i in range(6)] for of_class in COLOURS}
    red, green, blue, white = names.values()
    found = SimpleNamespace(folder=folder, names={"train": red + blue, "test": green, "uncaptioned": white})
    monkeypatch.setattr(features, "find_birds", lambda *_: found)
    return found


def config(cache_dir, **options):
    made = {"weights": "train", "size": 16} | options
    training = {"train_size": 12, "epochs": 1, "batch_size": 4, "lr": 0.3} if made["weights"] == "train" else {}
    return Config(cache_dir=cache_dir, **training | made)


def colours(n):
    """Images of four colours in turn, with noise, and which colour."""
    labels = torch.arange(n) % 4
    noise = 20 * torch.randn(n, 3, 18, 18, generator=torch.Generator().manual_seed(1))
    base = torch.tensor([*COLOURS.values()], dtype=torch.float32)[labels]
    return (base[:, :, None, None] + noise).clamp(0, 255).to(torch.uint8), labels


def test_features_are_the_pooled_last_layer_of_torchvisions_resnet101():
    whole = feature_network.resnet101(n_classes=7)
    with torch.no_grad():
        for module in whole.modules():
            if isinstance(module, nn.BatchNorm2d):  # whose last ones are initialised so that blocks do nothing
                module.weight.fill_(0.5)
    pooled = []
    whole.eval().avgpool.register_forward_hook(lambda *args: pooled.append(args[2].flatten(1)))
    network = extractor(whole.state_dict(), "it")
    assert sum(x.numel() for x in network.parameters()) == 42_500_160  # of 44,549,160 with 1,000 classes
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    of_them = features_of(network, images, 32)
    with torch.no_grad():
        whole((images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
    assert of_them.shape == (3, 2048) and of_them.std() > 1e-3
    assert torch.allclose(of_them, pooled[0], rtol=1e-4, atol=1e-6)


class Seen(nn.Module):
    """A network whose features are its input."""

    def __init__(self):
        super().__init__()
        self.none = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x


@pytest.mark.parametrize("shape", [(40, 71), (71, 40), (20, 20), (24, 24)])
def test_images_are_framed_and_normalised_as_torchvision_does(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    resize = [transforms.Resize(24), transforms.CenterCrop(24)]
    expected = transforms.Compose([*resize, transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    of_file = features_of_file(feature_files.Extractor(Seen(), 24), tmp_path / "a.png")
    assert torch.allclose(of_file, expected(Image.fromarray(pixels)), atol=1e-5)
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    expected = transforms.Compose([*resize, transforms.Normalize(MEAN, STD)])(images / 255)
    for x in (images, images / 255):
        assert torch.allclose(features_of(Seen(), x, 24), expected, atol=1e-5)


def test_random_crops_are_parts_of_the_image_of_the_areas_and_shapes_asked_for():
    n, side, size = 400, 64, 16
    along = torch.arange(side, dtype=torch.uint8) * 4
    image = torch.stack([along.expand(side, side), along[:, None].expand(side, side), torch.zeros(side, side)])
    crops = random_crops(image.to(torch.uint8).expand(n, -1, -1, -1), size, torch.Generator().manual_seed(0))
    assert crops.shape == (n, 3, size, size)
    where = (
        (crops * torch.tensor(STD).view(3, 1, 1) + torch.tensor(MEAN).view(3, 1, 1)) * 255 / 4
    )  # pixels of the image
    assert where[:, :2].min() > -1e-3 and where[:, :2].max() < side - 1 + 1e-3
    # between pixels of the crop that lie inside the image whatever the crop: 8 pixels apart
    across = (where[:, 0, 8, 12] - where[:, 0, 8, 4]) / 8 * size / side
    down = (where[:, 1, 12, 8] - where[:, 1, 4, 8]) / 8 * size / side
    area, ratio = across.abs() * down, across.abs() / down
    assert area.min() > 0.249 and area.max() < 1.001 and ratio.min() > 0.749 and ratio.max() < 1.334
    assert area.mean() == pytest.approx(0.62, abs=0.02)  # uniform in [0.25, 1], less where a side is cut to the image's
    assert ratio.log().mean() == pytest.approx(0, abs=0.03)
    assert 160 < (across < 0).sum() < 240  # mirrored: 200 +- 10
    assert down.min() > 0  # never upside down
    again = random_crops(image.to(torch.uint8).expand(n, -1, -1, -1), size, torch.Generator().manual_seed(0))
    assert again.equal(crops)


def test_training_learns_and_goes_on_as_if_never_stopped(tmp_path, small, monkeypatch):
    images, labels = colours(41)
    monkeypatch.setattr(feature_network, "SAVED_EVERY", 0.0)

    def train(path):
        return feature_network.train(images, labels, RECIPE, CPU, False, {"names": "x"}, path)

    shown, rates, crop, step = [], [], feature_network.random_crops, torch.optim.SGD.step

    def watched(images, *args):
        shown.append(images)
        return crop(images, *args)

    def stepping(optimizer):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer)

    monkeypatch.setattr(feature_network, "random_crops", watched)
    monkeypatch.setattr(torch.optim.SGD, "step", stepping)
    straight, accuracy = train(tmp_path / "a")
    assert accuracy == 1.0  # of the five held out; by chance a quarter of them
    trained_on = torch.cat(shown).view(3, 36, -1)
    for epoch in trained_on:  # all others once, in an order of its own
        rows = (epoch[:, None] == images.flatten(1)).all(dim=2).nonzero()[:, 1]
        assert sorted(rows.tolist()) == [i for i in range(41) if i % 10] and not rows.equal(rows.sort().values)
    assert not trained_on[0].equal(trained_on[1])
    # 27 steps: a warm-up of one in twenty, then a cosine
    assert rates[0] == pytest.approx(0.05 * (1 / 27) / 0.05)
    assert rates[8] == pytest.approx(0.05 * 0.75) and rates[17] == pytest.approx(0.05 * 0.25)
    assert rates[26] == pytest.approx(0)

    judged, judge = [], feature_network._accuracy

    def stops(*args):
        judged.append(args[1])
        if len(judged) == 2:
            raise KeyboardInterrupt
        return judge(*args)

    monkeypatch.setattr(feature_network, "_accuracy", stops)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b")
    assert load(tmp_path / "b")["epoch"] == 1
    resumed, same = train(tmp_path / "b")
    assert len(judged) == 4 and all(x.equal(images[::10]) for x in judged)
    assert same == accuracy and all(resumed[name].equal(x) for name, x in straight.items())
    assert train(tmp_path / "b")[1] == accuracy and len(judged) == 4  # nothing is left to do
    with pytest.raises(InputError, match="b belongs to another training run: delete it"):
        feature_network.train(images, labels, RECIPE._replace(lr=0.1), CPU, False, {"names": "x"}, tmp_path / "b")


def test_the_network_never_sees_test_classes(tmp_path, small, found, monkeypatch):
    seen, train = [], feature_network.train

    def watched(images, labels, *args):
        seen.append((images.float().mean(dim=(2, 3)), labels))
        return train(images, labels, *args)

    monkeypatch.setattr(features, "train", watched)
    features.main(config(tmp_path))
    ((means, labels),) = seen
    assert labels.tolist() == [0] * 6 + [1] * 6 + [2] * 6  # red, blue and white, in order of their names
    expected = torch.tensor([COLOURS[name] for name in ("001.Red", "003.Blue", "004.White")]).float()[labels]
    assert (means - expected).abs().max() < 20  # noise of deviation 20 is clipped at 255
    assert (
        about(tmp_path).items() >= {"weights": "trained on the birds", "classes": 3, "images": 18, "size": 16}.items()
    )
    # nor may a network that has learnt a test class of these images make their features
    found.names |= {"train": found.names["train"][:6], "test": found.names["train"][6:]}
    with pytest.raises(InputError, match="was trained on the test class 003.Blue"):
        features.main(config(tmp_path / "other", weights=tmp_path / feature_files.NETWORK))


def test_features_are_kept_in_the_images_order_and_made_once(tmp_path, small, found, monkeypatch):
    monkeypatch.setattr(features, "DECODED_AT_ONCE", 5)
    with pytest.raises(InputError, match="features_train.json is missing: run features.py with the same --data-dir"):
        load_features(found, "train", tmp_path)
    features.main(config(tmp_path))
    network = network_of(tmp_path)
    for split, n in (("train", 12), ("test", 6)):
        kept = load_features(found, split, tmp_path)
        assert kept.shape == (n, 2048) and kept.dtype == torch.float32
        for row, name in zip(kept, found.names[split], strict=True):
            assert torch.allclose(row, features_of_file(network, found.folder / name), atol=1e-6), name
    assert kept.std(dim=0).max() > 1e-4  # not all alike
    (tmp_path / "features_test.json").unlink()  # as if stopped between the two splits
    seen, decode = [], features.decode
    monkeypatch.setattr(features, "decode", lambda path, kind: seen.append(path) or decode(path, kind))
    features.main(config(tmp_path))
    assert sorted(seen) == [found.folder / name for name in found.names["test"]]
    assert load_features(found, "test", tmp_path).equal(kept)


def test_the_nearest_are_by_euclidean_distance(monkeypatch):
    monkeypatch.setattr(feature_files, "NEAREST_AT_ONCE", 2)
    among = torch.tensor([[0.0, 0.0], [10.0, 0.0], [3.0, 4.0]])
    query = torch.tensor([[6.0, 1.0], [1.0, 1.0], [7.0, 0.0], [2.0, 3.0], [10.0, 0.0]])
    # squared distances of the first: 37, 17, 18; the dot product would choose the second for all but the fourth
    assert nearest(query, among).tolist() == [1, 0, 1, 2, 1]
    monkeypatch.undo()
    alike = 1 + 1e-4 * torch.randn(300, 2048, generator=torch.Generator().manual_seed(0))
    assert nearest(alike[:50], alike).equal(torch.arange(50)), "also where products would round differences away"


def test_what_cannot_be_trained_or_made_is_named(tmp_path, small, found):
    images, labels = colours(20)
    with pytest.raises(InputError, match="not finite in epoch 1: try a smaller --lr"):
        feature_network.train(images, labels, RECIPE._replace(lr=1e30), CPU, False, {}, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    features.main(config(tmp_path))
    network = tmp_path / feature_files.NETWORK
    features.main(config(tmp_path, weights=network, size=None))  # the one it was trained for
    bad = small_resnet(5).state_dict()
    torch.save(bad | {"bn1.running_mean": torch.full((2048,), torch.nan)}, tmp_path / "nan.pth")
    del bad["bn1.running_mean"]
    torch.save(bad, tmp_path / "lacks.pth")
    for options, message in (
        ({"epochs": 2}, "was trained with other options or on other images: delete cub_resnet101.pth.tar"),
        ({"weights": network, "size": 20}, "with another --size"),
        ({"weights": tmp_path / "lacks.pth"}, "lacks.pth does not fit ResNet-101: .*bn1.running_mean"),
        ({"weights": tmp_path / "nan.pth"}, "not finite, in bn1.running_mean"),
        ({"weights": tmp_path / "none.pth"}, "none.pth: there is no such file; give one, torchvision or train"),
    ):
        with pytest.raises(InputError, match=message):
            features.main(config(tmp_path, **options))
    found.names |= {"train": found.names["train"][:6], "uncaptioned": []}
    with pytest.raises(InputError, match="has 6 images of 1 classes to train on, which are too few"):
        features.main(config(tmp_path / "one"))


def test_features_that_belong_to_others_are_refused(tmp_path, small, found):
    for name, seed in (("own", 0), ("others", 1)):
        features.main(config(tmp_path / name, seed=seed))
    own = tmp_path / "own"

    def refused(split, message, found=found):
        with pytest.raises(InputError, match=message):
            load_features(found, split, own)

    other = SimpleNamespace(folder=found.folder, names={"train": found.names["train"][1:]})
    refused("train", "features_train.npy holds features of other images", other)
    replaced = found.folder / found.names["test"][0]
    before = replaced.stat()
    os.utime(replaced, (0, 0))
    refused("test", "features_test.npy holds features of other images .*: delete features_")
    os.utime(replaced, ns=(before.st_atime_ns, before.st_mtime_ns))
    for suffix in ("npy", "json"):
        shutil.copy(tmp_path / "others" / f"features_test.{suffix}", own)
    refused("test", "features_test.npy was made by another network than the features of training images")
    shutil.copy(tmp_path / "others" / feature_files.NETWORK, own)
    with pytest.raises(InputError, match="did not make the features beside it"):
        network_of(own)
    np.load(own / "features_train.npy", mmap_mode="r+")[1, 5] = np.inf
    refused("train", "features_train.npy holds values that are not finite, in 1 rows: delete")
    (own / "features_train.json").write_text("{")
    refused("train", "features_train.json is .*damaged.*: delete")


def test_imagenets_weights_are_those_that_torchvision_looks_for(tmp_path, small, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    def offline(*_, **__):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    assert models.ResNet101_Weights.IMAGENET1K_V1.url == feature_network.IMAGENET
    file = tmp_path / "checkpoints" / "resnet101-63fe2227.pth"
    with pytest.raises(InputError, match=f"no network.*by hand to {file}, or give --weights PATH.*--weights train"):
        feature_network.imagenet()
    torch.save(small_resnet(5).state_dict(), file)
    extractor(feature_network.imagenet(), "torchvision's weights")
