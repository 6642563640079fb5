"""Does the face that a model makes of one view have the attributes of the face it is of? A classifier tells.

    python analyse.py trained_models --data-dir data     a table by attribute
    python analyse.py trained_models --demo              drawn faces, whose attributes are true

The classifier: `python ../celeba/analyse.py --help`. Shares of test faces whose colour image, decoded of one z of
q(z|a view), shows the attribute as it is, in %, by view; beside them what the classifier reaches on the images
themselves, and always saying what most test images have. A face without a mask has z of the prior in that column.
"""

import torch
from torch import Tensor, nn

from celeba import analyse
from celeba.analyse import BATCH_SIZE, commoner
from celeba.analyse import JudgedConfig as Config
from celeba.classifier import tell
from common import distributed
from common.checkpoints import load_model
from common.data import Examples
from common.models import MultimodalVAE
from common.training import devices, run_from_command_line
from vision.data import load


def main(config: Config) -> dict[str, dict[str, float]]:
    config.check()
    device = devices.select(config.cuda)
    model = load_model(config.model, "vision").to(device)
    network, test = analyse.judge(config, device)
    views = load("test", config).to(device)
    torch.manual_seed(config.seed)
    distributed.seed_each_process()
    return analyse.report(shares(model, network, test, views), config, "vision", len(test))


@torch.no_grad()
def shares(model: MultimodalVAE, network: nn.Module, test: Examples, views: Examples) -> dict[str, Tensor]:
    """By column of the table, (18,)."""
    truth = test.modalities["attrs"].bool()

    def right(rows: Tensor) -> dict[str, Tensor]:
        batch = views[rows]
        decoded = {"test images": batch.modalities["image"]}
        for name in model.modalities:
            decoded[name] = model.decode(model.posterior(batch, (name,)).sample(), ["image"])["image"].mean
        return {name: tell(network, images) == truth[rows] for name, images in decoded.items()}

    found = distributed.map_rows(len(test), BATCH_SIZE, right)
    return {name: x.double().mean(dim=0) for name, x in found.items()} | commoner(truth)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
