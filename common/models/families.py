"""Posterior families: one record each."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import nn
from torch.distributions import Laplace, Normal

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


def energy_based(sizes: Sequence[int]) -> LocScaleEbmPosterior:
    """The posterior whose energy is a network with two hidden layers."""
    return LocScaleEbmPosterior(nn.Sequential(swish_mlp(sum(sizes), 64, 64), nn.Linear(64, 1), nn.Softplus()))


def gaussian_prior(sizes: Sequence[int], learn: bool) -> nn.Module:
    """N(0, I), or with learned scales N(0, diag(s^2))."""
    return LearnedPrior(DiagonalGaussianPosterior(), sum(sizes)) if learn else StandardGaussianPrior(sum(sizes))


def prior_in(family: Callable[[Sequence[int]], Posterior]) -> Callable[[Sequence[int], bool], nn.Module]:
    """The prior in a family, with learned or fixed scales."""
    return lambda sizes, learn: LearnedPrior(family(sizes), sum(sizes), learn)


def vmf_family(n_vmfs: int) -> Family:
    """The family of z on n_vmfs unit spheres, each in D / n_vmfs dimensions with a von Mises-Fisher distribution."""
    return Family(
        name="vmf",
        summary="von Mises-Fisher, z on the unit sphere, or on several side by side",
        n_params=1,
        posterior=lambda sizes: VmfProductPosterior(n_vmfs),
        product=VmfPoeStrategy,
        prior=lambda sizes, learn: UniformHypersphericalPrior(sum(sizes), n_vmfs),
        fixed_prior=True,
    )


FAMILIES = {
    family.name: family
    for family in (
        Family(
            name="gaussian",
            summary="diagonal Gaussian",
            n_params=2,
            posterior=lambda sizes: DiagonalGaussianPosterior(),
            product=GaussianPoeStrategy,
            prior=gaussian_prior,
            private_latents=True,
            is_gaussian=True,
        ),
        Family(
            name="laplace",
            summary="Laplace whose scales sum to the number of latents; mixtures and single encoders only",
            n_params=2,
            posterior=lambda sizes: LaplacePosterior(sizes=sizes),
            product=None,
            prior=prior_in(lambda sizes: LaplacePosterior(0, sizes)),
            private_latents=True,
        ),
        Family(
            name="softplus-laplace",
            summary="Laplace with softplus scales; mixtures and single encoders only",
            n_params=2,
            posterior=lambda sizes: SoftplusPosterior(Laplace),
            product=None,
            prior=prior_in(lambda sizes: SoftplusPosterior(Laplace)),
            private_latents=True,
        ),
        Family(
            name="softplus-normal",
            summary="Gaussian with softplus scales; mixtures and single encoders only",
            n_params=2,
            posterior=lambda sizes: SoftplusPosterior(Normal),
            product=None,
            prior=prior_in(lambda sizes: SoftplusPosterior(Normal)),
            private_latents=True,
        ),
        Family(
            name="laplace-normal",
            summary="first expert Laplace, second one Gaussian, prior Laplace; mixtures only",
            n_params=2,
            posterior=lambda sizes: LaplaceOrNormalPosterior((True, False)),
            product=None,
            prior=prior_in(lambda sizes: LaplacePosterior()),
            only_mixed=True,
        ),
        vmf_family(n_vmfs=1),
        Family(
            name="ebm",
            summary="energy-based: Gaussian times a learned exp(-E), prior N(0, I); products only",
            n_params=2,
            posterior=energy_based,
            product=LocScaleEbmStrategy,
            prior=lambda sizes, learn: StandardGaussianPrior(sum(sizes)),
            fixed_prior=True,
            has_density=False,
        ),
    )
}
