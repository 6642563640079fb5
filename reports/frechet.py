"""Frechet distances between decoded and test images, by features of a judge or of Inception-v3."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from common.data import tensor_files
from common.errors import InputError, require

AT_ONCE = 50  # images in a batch of Inception-v3, whose first feature maps are large
WEIGHTS = "pt_inception-2015-12-05-6726825d.pth"
REMEDY = f"give {WEIGHTS}, which PolyMNIST's archives hold and the packages pytorch-fid and torch-fidelity offer"


class Moments(NamedTuple):
    """The mean (F,) of features, and a root R (min(N, F), F) of their covariance R^T R, in float64."""

    mean: Tensor
    root: Tensor


def moments(features: Tensor) -> Moments:
    """The moments of features (N, F).

    Raises:
        InputError: fewer than two examples, or features that are not finite.
    """
    require(len(features) > 1, "a Frechet distance needs two examples or more: raise --limit or --n-test")
    require(bool(features.isfinite().all()), "features are not finite: check the model's weights and the judge's")
    mean = features.double().mean(dim=0)
    return Moments(mean, torch.linalg.qr((features - mean) / (len(features) - 1) ** 0.5, mode="r").R)


def frechet_distance(x: Moments, y: Moments) -> float:
    r"""The Frechet distance between Gaussians with these moments (Heusel et al. 2017, arXiv 1706.08500).

    .. math:: |\mu_x - \mu_y|^2 + Tr \big( \Sigma_x + \Sigma_y - 2 (\Sigma_x \Sigma_y)^{1/2} \big)

    With roots of the covariances, the last trace is the sum of the singular values of :math:`R_x R_y^T`. It is called
    FID only for the features of Inception-v3.
    """
    cross = torch.linalg.matrix_norm(x.root @ y.root.T, "nuc")
    distance = (x.mean - y.mean).square().sum() + x.root.square().sum() + y.root.square().sum() - 2 * cross
    return distance.clamp(min=0).item()


def inception_features(weights: Path, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return the function of images that FID compares: pool3 of Inception-v3 as torch-fidelity has it, (N, 2048).

    It takes images (N, 3, H, W), float, as the model decodes them. As in MMVAE+'s code, which saves PNG files, they are
    clamped to [0, 1] and rounded to 8 bits; the network scales them to 299 x 299 and to [-1, 1].

    Args:
        weights: the file `WEIGHTS`, of 2015-12-05.

    Raises:
        InputError: torch-fidelity is not installed, or the file is missing, damaged or another one.
    """
    state = tensor_files.load(weights, dict[str, Tensor], REMEDY, REMEDY)
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
