r"""MMVAE on MNIST-SVHN in one file (Shi et al. 2019, arXiv 1911.03393): networks, mixture of experts, objective, loop.

    python -m reference.mmvae DATA_DIR       DATA_DIR has MNIST's idx files and SVHN's train_32x32.mat

Two images x_1 and x_2 of the same digit share a latent z. Each modality has an encoder q(z|x_m) and a decoder p(x_m|z).
The posterior is the mixture of the encoders, q(z|X) = 1/M sum_m q(z|x_m). The settings are the paper's: a learned prior
and DReG's gradient of the looser importance-weighted bound. Options, checkpoints, samples and analyses: mnist_svhn/.
"""

import argparse
import math
from pathlib import Path

from common.errors import InputError
from mnist.data import digits
from mnist_svhn.data import pair, read_svhn

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Laplace

D, WIDTH, SVHN_WIDTH = 20, 400, 128 * 4 * 4  # D: dimensions of z
SCALE = 0.75  # of p(x_m|z)
LAMBDA = {"mnist": 3 * 32**2 / 28**2, "svhn": 1.0}  # weight of log p(x_m|z): MNIST counts as if it had SVHN's size
MATCHINGS, MAX_PER_CLASS = 30, 10_000  # partners of each image; images of a class
K, EPOCHS, BATCH_SIZE, LEARNING_RATE = 30, 30, 128, 1e-3  # K: samples of each encoder
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Head(nn.Linear):
    """The last layer of an encoder: features (B, n) -> loc and a of `laplace`, each (B, D)."""

    def __init__(self, n: int) -> None:
        super().__init__(n, 2 * D)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return super().forward(features).chunk(2, dim=1)


def encoders() -> dict[str, nn.Module]:
    """mnist (B, 1, 28, 28) or svhn (B, 3, 32, 32), in [0, 1] -> loc and a of q(z|x_m)."""
    mnist = nn.Sequential(nn.Flatten(), nn.Linear(784, WIDTH), nn.ReLU(), Head(WIDTH))
    svhn = nn.Sequential(
        *(nn.Conv2d(3, 32, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 4, 2, 1), nn.ReLU()),
        *(nn.Conv2d(64, 128, 4, 2, 1), nn.ReLU()),
        *(nn.Flatten(), Head(SVHN_WIDTH)),  # the authors' convolution of 4 x 4 pixels to one
    )
    return {"mnist": mnist, "svhn": svhn}


def decoders() -> dict[str, nn.Module]:
    """z (B, D) -> the mean of p(x_m|z), in the shape of x_m."""
    mean = nn.Linear(WIDTH, 784), nn.Sigmoid(), nn.Hardtanh(1e-6, 1 - 1e-6)  # a clamp, as in the authors' code
    mnist = nn.Sequential(nn.Linear(D, WIDTH), nn.ReLU(), *mean, nn.Unflatten(1, (1, 28, 28)))
    svhn = nn.Sequential(
        *(nn.Unflatten(1, (D, 1, 1)), nn.ConvTranspose2d(D, 128, 4), nn.ReLU()),
        *(nn.ConvTranspose2d(128, 64, 4, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.ReLU()),
        *(nn.ConvTranspose2d(32, 3, 4, 2, 1), nn.Sigmoid()),
    )
    return {"mnist": mnist, "svhn": svhn}


def laplace(loc: Tensor, a: Tensor, min_scale: float) -> Laplace:
    """Laplace with the scales D softmax(a) + min_scale, which sum to D: (..., D)."""
    return Laplace(loc, a.shape[-1] * a.softmax(dim=-1) + min_scale)


class MMVAE(nn.Module):
    """The distributions of the model.

    Args:
        encoder: by modality, x_m (B, ...) -> loc and a of q(z|x_m), each (B, D).
        decoder: by modality, z (N, D) -> the mean of p(x_m|z), (N, ...).
    """

    def __init__(self, encoder: dict[str, nn.Module], decoder: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleDict(encoder), nn.ModuleDict(decoder)
        self.prior_a = nn.Parameter(torch.zeros(D))

    def prior(self) -> Distribution:
        """p(z), (D,), with learned scales."""
        return laplace(torch.zeros_like(self.prior_a), self.prior_a, min_scale=0)

    def posterior(self, name: str, x: Tensor) -> Distribution:
        """q(z|x_m), (B, D)."""
        return laplace(*self.encoder[name](x), min_scale=1e-6)

    def log_likelihood(self, name: str, z: Tensor, x: Tensor) -> Tensor:
        """log p(x_m|z) of z (K, B, D) and x_m (B, ...): (K, B), nats."""
        mean = self.decoder[name](z.flatten(0, 1)).unflatten(0, z.shape[:2])
        return Laplace(mean, SCALE).log_prob(x).flatten(2).sum(dim=-1)


def log_weights(
    model: MMVAE, x: dict[str, Tensor], q: list[Distribution], z: Tensor, lambda_: dict[str, float]
) -> Tensor:
    r"""log w of samples z (K, B, D): (K, B), nats.

        w = p(z) prod_m p(x_m|z)^lambda_m / q(z|X)        q(z|X) = 1/M sum_m q(z|x_m)

    Args:
        q: the encoders' distributions q(z|x_m), (B, D) each.
    """
    log_p = sum(lambda_[name] * model.log_likelihood(name, z, x[name]) for name in x)
    log_q = torch.stack([q_m.log_prob(z).sum(dim=-1) for q_m in q]).logsumexp(dim=0) - math.log(len(q))
    return model.prior().log_prob(z).sum(dim=-1) + log_p - log_q


def dreg_looser(model: MMVAE, x: dict[str, Tensor], K: int, lambda_: dict[str, float]) -> tuple[Tensor, Tensor]:
    r"""The loss and the bound, means over the batch, nats.

        bound = 1/M sum_m log 1/K sum_k w_mk        z_mk ~ q(z|x_m)

    This is IWAE's bound with the mean over the modalities outside the logarithm, the looser form. The loss is a
    surrogate with DReG's gradient (Tucker et al. 2019, arXiv 1810.04152). Let v_mk = w_mk / sum_k w_mk. The gradient of

        log w_mk by the decoders' and the prior's parameters counts v_mk times,
        log w_mk by z_mk, which leads to the parameters of its encoder, v_mk^2 times,
        log q(z|X) by the parameters of the encoders at fixed z not at all.

    The paper takes this rule from models of one encoder. For a mixture it is biased: mnist_svhn's --dreg exact is not.
    """
    q = [model.posterior(name, x[name]) for name in x]
    stopped = [type(q_m)(q_m.loc.detach(), q_m.scale.detach()) for q_m in q]
    loss, bound = 0, 0
    for q_m in q:
        z = q_m.rsample((K,))
        log_w = log_weights(model, x, stopped, z, lambda_)
        v = log_w.detach().softmax(dim=0)
        z.register_hook(lambda gradient, v=v: v.unsqueeze(-1) * gradient)  # v once more, on the way to the encoder
        loss = loss - (v * log_w).sum(dim=0).mean() / len(q)
        bound = bound + (log_w.detach().logsumexp(dim=0) - math.log(K)).mean() / len(q)
    return loss, bound


def main(data_dir: Path) -> None:
    """Train on pairs of training images and print the mean bound of each epoch."""
    mnist, (svhn, svhn_labels) = digits("train", data_dir).modalities, read_svhn("train", data_dir)
    generator = torch.Generator().manual_seed(0)
    pairs = torch.stack(pair(mnist["text"], svhn_labels, MATCHINGS, MAX_PER_CLASS, generator), dim=1).to(DEVICE)
    images, svhn = mnist["image"].to(DEVICE), svhn.to(DEVICE)
    torch.manual_seed(0)
    model = MMVAE(encoders(), decoders()).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, amsgrad=True)
    for epoch in range(EPOCHS):
        total = 0.0
        for rows in torch.randperm(len(pairs), device=DEVICE).split(BATCH_SIZE):
            i, j = pairs[rows].unbind(dim=1)
            optimizer.zero_grad()
            loss, bound = dreg_looser(model, {"mnist": images[i] / 255, "svhn": svhn[j] / 255}, K, LAMBDA)
            loss.backward()
            optimizer.step()
            total += len(rows) * bound.item()
        print(f"epoch {epoch + 1}: bound {total / len(pairs):.3f} nats", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, metavar="DATA_DIR")
    try:
        main(parser.parse_args().data_dir)
    except InputError as error:
        parser.exit(2, f"error: {error} (options of mnist_svhn/train.py)\n")
