import torch

import fashionmnist.data
from tests.helpers.data_config import data_config
from tests.helpers.mnist_files import IMAGES, write_mnist


def test_fashionmnist_is_read_where_torchvision_leaves_it(tmp_path):
    write_mnist(tmp_path / "FashionMNIST/raw")
    examples = fashionmnist.data.load("test", data_config(tmp_path, limit=5))
    assert examples.modalities["image"].equal(torch.from_numpy(IMAGES[:5]).unsqueeze(1))
    assert fashionmnist.data.FASHIONMNIST.names(examples.modalities["text"])[:2] == ["T-shirt/top", "Trouser"]
