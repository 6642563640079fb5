"""The features of images that FID compares."""

import io
from collections.abc import Callable
from pathlib import Path

from common.errors import InputError
from common.io import load_tensors

import torch
from torch import Tensor

AT_ONCE = 50  # images in a batch of Inception-v3, whose first feature maps are large
WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
REMEDY = f"give {WEIGHTS}, which PolyMNIST's archives hold and the packages pytorch-fid and torch-fidelity offer"


def inception_features(weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function of images that FID compares: pool3 of Inception-v3 as torch-fidelity has it, (N, 2048).

    It takes images (N, 3, H, W), float, as the model decodes them. As in MMVAE+'s code, which saves PNG files, they are
    clamped to [0, 1] and rounded to 8 bits; the network scales them to 299 x 299 and to [-1, 1].

    Args:
        weights: the file `WEIGHTS`, of 2015-12-05.

    Raises:
        InputError: torch-fidelity is not installed, or the file is missing, damaged or another one.
    """
    state = load_tensors(weights, dict[str, Tensor], REMEDY, REMEDY)
    import common.data.torchvision_import  # noqa: F401 (torch-fidelity imports torchvision)

    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise InputError("FID needs torch-fidelity: pip install torch-fidelity, or leave out --inception") from error

    checked = io.BytesIO()  # torch-fidelity would unpickle whatever the file itself holds
    torch.save(state, checked)
    checked.seek(0)
    try:
        network = FeatureExtractorInceptionV3("inception", ["2048"], checked).to(device)
    except RuntimeError as error:  # of load_state_dict
        raise InputError(f"{weights} holds other weights than Inception-v3's: {REMEDY}") from error

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        bits = (images.clamp(0, 1) * 255).round().to(torch.uint8)
        return torch.cat([network(x)[0] for x in bits.split(AT_ONCE)])

    return features
