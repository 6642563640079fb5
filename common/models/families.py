"""Posterior families: one record each."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from common.distributions.location_scale import StudentT
from common.encoders_decoders import swish_mlp
from common.priors import LearnedPrior, StandardGaussianPrior, UniformHypersphericalPrior
from common.variational_posteriors import (
    DiagonalGaussianPosterior,
    LaplaceOrNormalPosterior,
    LaplacePosterior,
    LocScaleEbmPosterior,
    Posterior,
    SoftplusPosterior,
    VmfProductPosterior,
)
from common.variational_strategies import GaussianPoeStrategy, LocScaleEbmStrategy, Strategy, VmfPoeStrategy

from torch import nn
from torch.distributions import Laplace, Normal


class Family(NamedTuple):
    """A posterior family.

    name: the key in FAMILIES.
    summary: what --help says.
    n_params: number of vectors (N, D) that an encoder gives.
    posterior: sizes, numbers of shared and of each modality's own latents -> the family's module.
    product: the strategy that multiplies the family's experts and the prior; None if such a product leaves the family.
    prior: the same sizes, whether scales are learned -> the prior's module.
    fixed_prior: whether the prior has no scales to learn.
    has_density: whether log q(z) is known in closed form.
    only_mixed: whether its members can only be components of mixtures.
    private_latents: whether modalities can have private latents, each with parameters of its own.
    is_gaussian: whether an encoder gives the means and log-variances of diagonal Gaussians.
    """

    name: str
    summary: str
    n_params: int
    posterior: Callable[[Sequence[int]], Posterior]
    product: type[Strategy] | None
    prior: Callable[[Sequence[int], bool], nn.Module]
    fixed_prior: bool = False
    has_density: bool = True
    only_mixed: bool = False
    private_latents: bool = False
    is_gaussian: bool = False


def gaussian_prior(sizes: Sequence[int], learn: bool) -> nn.Module:
    """N(0, I), or with learned scales N(0, diag(s^2))."""
    return LearnedPrior(DiagonalGaussianPosterior(), sum(sizes)) if learn else StandardGaussianPrior(sum(sizes))


def location_scale_family(
    name: str,
    summary: str,
    posterior: Callable[[Sequence[int]], Posterior],
    prior: Callable[[Sequence[int]], Posterior] | None = None,
    **features: bool,
) -> Family:
    """A family of locations and scales that has no products, with the prior in the family, or in another one."""

    def prior_of(sizes: Sequence[int], learn: bool) -> nn.Module:
        return LearnedPrior((prior or posterior)(sizes), sum(sizes), learn)

    return Family(name, summary, 2, posterior, None, prior_of, **features)


def vmf_family(n_vmfs: int) -> Family:
    """The family of z on n_vmfs unit spheres, each in D / n_vmfs dimensions with a von Mises-Fisher distribution."""
    return Family(
        "vmf",
        "von Mises-Fisher, z on the unit sphere, or on several side by side",
        n_params=1,
        posterior=lambda sizes: VmfProductPosterior(n_vmfs),
        product=VmfPoeStrategy,
        prior=lambda sizes, learn: UniformHypersphericalPrior(sum(sizes), n_vmfs),
        fixed_prior=True,
    )


def energy_based(sizes: Sequence[int]) -> LocScaleEbmPosterior:
    """The posterior whose energy is a network with two hidden layers."""
    return LocScaleEbmPosterior(nn.Sequential(swish_mlp(sum(sizes), 64, 64), nn.Linear(64, 1), nn.Softplus()))


_FAMILIES = (
    Family(
        "gaussian",
        "diagonal Gaussian",
        n_params=2,
        posterior=lambda sizes: DiagonalGaussianPosterior(),
        product=GaussianPoeStrategy,
        prior=gaussian_prior,
        private_latents=True,
        is_gaussian=True,
    ),
    location_scale_family(
        "laplace",
        "Laplace whose scales sum to the number of latents; mixtures and single encoders only",
        lambda sizes: LaplacePosterior(sizes=sizes),
        lambda sizes: LaplacePosterior(0, sizes),
        private_latents=True,
    ),
    location_scale_family(
        "softplus-laplace",
        "Laplace with softplus scales; mixtures and single encoders only",
        lambda sizes: SoftplusPosterior(Laplace),
        private_latents=True,
    ),
    location_scale_family(
        "softplus-normal",
        "Gaussian with softplus scales; mixtures and single encoders only",
        lambda sizes: SoftplusPosterior(Normal),
        private_latents=True,
    ),
    location_scale_family(
        "student-t",
        "Student-t with 3 degrees of freedom and softplus scales; mixtures and single encoders only",
        lambda sizes: SoftplusPosterior(StudentT),
        private_latents=True,
    ),
    location_scale_family(
        "laplace-normal",
        "first expert Laplace, second one Gaussian, prior Laplace; mixtures only",
        lambda sizes: LaplaceOrNormalPosterior((True, False)),
        lambda sizes: LaplacePosterior(),
        only_mixed=True,
    ),
    vmf_family(n_vmfs=1),
    Family(
        "ebm",
        "energy-based: Gaussian times a learned exp(-E), prior N(0, I); products only",
        n_params=2,
        posterior=energy_based,
        product=LocScaleEbmStrategy,
        prior=lambda sizes, learn: StandardGaussianPrior(sum(sizes)),
        fixed_prior=True,
        has_density=False,
    ),
)
FAMILIES = {family.name: family for family in _FAMILIES}
