import torch

import fashionmnist.data
from tests.helpers.data_config import data_config
from tests.helpers.mnist_files import IMAGES, write_mnist


def test_fashionmnist_is_read_where_torchvision_leaves_it(tmp_path):
    write_mnist(tmp_path / "FashionMNIST/raw")
    examples = fashionmnist.data.load("test", data_config(tmp_path, limit=5))
    assert examples.modalities["image"].equal(torch.from_numpy(IMAGES[:5]).unsqueeze(1))
    assert fashionmnist.data.FASHIONMNIST.names(examples.modalities["text"])[:2] == ["T-shirt/top", "Trouser"]


def test_drawn_garments_are_a_dataset_of_their_own():
    train, test = (fashionmnist.data.load(split, data_config("", demo=True)) for split in ("train", "test"))
    assert (len(train), len(test)) == (2000, 500)
    assert (train.modalities["text"].bincount() > 100).all() and (test.modalities["text"].bincount() > 25).all()
    same = (train.modalities["image"].flatten(1)[:, None] == test.modalities["image"].flatten(1)[:20]).all(dim=2)
    assert not same.any(), "test garments are no training garments"
