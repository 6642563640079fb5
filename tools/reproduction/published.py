"""The papers' figures."""

from collections.abc import Iterable
from typing import NamedTuple

from cub.options import PAPER as CUB


class Published(NamedTuple):
    """A figure of a paper."""

    value: float
    recalled: bool = True
    """quoted from memory, not checked against the paper"""


def recalled(names: Iterable[str], values: Iterable[float]) -> dict[str, Published]:
    """Figures by name, quoted from memory."""
    return {name: Published(value) for name, value in zip(names, values, strict=True)}


def checked(names: Iterable[str], values: Iterable[float]) -> dict[str, Published]:
    """Figures by name, checked against the paper, or quoted by others or by its authors elsewhere."""
    return {name: Published(value, False) for name, value in zip(names, values, strict=True)}


# Wu & Goodman 2018, Table 2, nats
LIKELIHOODS = ("log p(x)", "log p(x,y)", "log p(x|y)")
TABLE2 = {
    "mnist": {
        "vae, binary": "-86.313 - -",
        "cvae, binary": "- - -83.448",
        "bivcca, binary": "-87.354 - -",
        "jmvae, binary": "-86.305 -86.371 -83.985",
        "mvae-q, binary": "-91.665 -92.259 -90.024",
        "mvae, binary": "-86.026 -86.255 -83.970",
        "vae": "-91.126 - -",
        "cvae": "- - -87.773",
        "bivcca": "-92.089 - -",
        "jmvae": "-90.697 -90.769 -88.696",
        "mvae-q": "-96.028 -96.641 -94.347",
        "mvae": "-90.619 -90.859 -88.569",
    },
    "fashionmnist": {
        "vae": "-232.758 - -",
        "cvae": "- - -229.667",
        "bivcca": "-233.634 - -",
        "jmvae": "-232.630 -232.948 -230.396",
        "mvae-q": "-236.081 -236.827 -234.514",
        "mvae": "-232.535 -233.007 -230.695",
    },
    "multimnist": {
        "vae": "-152.835 - -",
        "bivcca": "-202.490 - -",
        "jmvae": "-152.787 -153.101 -145.977",
        "mvae-q": "-166.580 -173.615 -163.302",
        "mvae": "-152.761 -153.469 -147.027",
    },
    "celeba": {
        "vae": "-6237.120 - -",
        "cvae": "- - -6228.771",
        "bivcca": "-7263.536 - -",
        "jmvae": "-6237.967 -6242.187 -6231.468",
        "mvae-q": "-6290.085 -6294.861 -6311.487",
        "mvae": "-6236.923 -6242.034 -6234.955",
    },
    "celeba19": {"mvae": "-6236.109 -6239.944 -6233.340"},
}

# Shi et al. 2019, Tables 1 and 2, %
COHERENCES = ("mnist -> svhn", "svhn -> mnist", "joint")
LATENTS = ("mnist from z", "svhn from z")
MNIST_SVHN = {
    "mmvae": checked(COHERENCES, (86.4, 69.1, 42.1)) | recalled(LATENTS, (91.3, 68.0)),
    "mvae": recalled((*COHERENCES, *LATENTS), (9.5, 9.3, 12.7, 95.7, 9.1)),
}

# Shi et al. 2019, section 4.2, correlations
CUB_FEATURES = recalled(CUB, CUB.values()) | checked(["joint"], [CUB["joint"]])

# Hewitt et al. 2018, %, and nats an image
FIVE_SHOT = {
    "deconv, statistician": 95.6,
    "deconv, resample": 94.0,
    "deconv, rescale": 95.3,
    "deconv, vhe": 95.6,
    "pixelcnn, statistician": 66.0,
    "pixelcnn, resample": 4.9,
    "pixelcnn, rescale": 62.8,
    "pixelcnn, vhe": 98.8,
}
OMNIGLOT = {model: recalled(["5-shot, 20-way"], [accuracy]) for model, accuracy in FIVE_SHOT.items()}
OMNIGLOT["pixelcnn, vhe"] |= recalled(["1-shot, 20-way", "log p(character)/20"], [95.2, -61.2])


N_GAUSSIANS = 10  # fitted to the latents, in place of the prior
# %: Hwang et al. 2021, Table 1, coherences given 1 to 4 images and linear accuracies given 1 to 5; jnf's and all joint
# coherences by the multivae package's case study; mmvae+'s and cmvae's as the package's README quotes their papers
POLYMNIST_COHERENCES = tuple(f"coherence, {n} given" for n in range(1, 5))
POLYMNIST_JOINT = ("joint", f"joint, z from {N_GAUSSIANS} Gaussians")
POLYMNIST_LINEAR = tuple(f"linear accuracy, {n} given" for n in range(1, 6))
HWANG_TABLE_1, MULTIVAE_STUDY = (*POLYMNIST_COHERENCES, *POLYMNIST_LINEAR), (*POLYMNIST_COHERENCES, *POLYMNIST_JOINT)
POLYMNIST = {
    "mvae": checked((*HWANG_TABLE_1, *POLYMNIST_JOINT), (29, 42, 48, 52, 70, 84, 91, 93, 95, 2, 21)),
    "mmvae": checked((*HWANG_TABLE_1, *POLYMNIST_JOINT), (71, 71, 71, 71, 82, 82, 82, 82, 82, 21, 17)),
    "mmjsd": checked(HWANG_TABLE_1, (69, 57, 64, 67, 89, 98, 99, 100, 100)),
    "mopoe-published": checked((*HWANG_TABLE_1, *POLYMNIST_JOINT), (63, 75, 79, 81, 82, 90, 93, 94, 95, 8, 27)),
    "mvtcae": checked((*HWANG_TABLE_1, *POLYMNIST_JOINT), (59, 77, 83, 86, 94, 99, 100, 100, 100, 0.5, 46)),
    "jnf": checked(MULTIVAE_STUDY, (67, 85, 90, 92, 6, 38)),
    "mmvae+": checked(POLYMNIST_COHERENCES[:1], (86.9,)),
    "cmvae": checked((POLYMNIST_COHERENCES[0], POLYMNIST_JOINT[0]), (89.7, 78.1)),
}

# %: Zhang, Shen & Wang, IDMVAE, ICLR 2026, second hand
QUADRANT = {
    "mmvae+": recalled(("z -> digit", "w -> digit"), (38, 34)),
    "idmvae": recalled(("z -> digit", "w -> digit"), (98, 16)),
}


def table2(experiment: str, model: str) -> dict[str, Published]:
    """The figures of a model in Table 2 of Wu & Goodman 2018; none if it is not there."""
    values = TABLE2.get(experiment, {}).get(model, "- - -").split()
    return {name: Published(float(x), False) for name, x in zip(LIKELIHOODS, values, strict=True) if x != "-"}
