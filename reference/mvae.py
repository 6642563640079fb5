r"""MVAE on MNIST in one file (Wu & Goodman 2018, arXiv 1802.05335): networks, product of experts, objective, loop.

    python -m reference.mvae DATA_DIR        DATA_DIR has MNIST's idx files

An image x_1 and its label x_2 share a latent z with the prior p(z) = N(0, I). Each modality has a decoder p(x_m|z) and
an encoder, whose Gaussian N(z; mu_m, V_m) is an expert on z. Any subset X of the modalities gives a posterior q(z|X).
The settings are the authors'. Options, checkpoints, samples and log-likelihoods: mnist/.
"""

import argparse
from itertools import pairwise
from pathlib import Path

from common.errors import InputError
from mnist.data import digits

import torch
from torch import Tensor, nn
from torch.nn import functional as F

D, WIDTH, N_CLASSES = 64, 512, 10  # D: dimensions of z
LAMBDA = {"image": 1.0, "text": 50.0}  # weight of log p(x_m|z)
EPOCHS, ANNEALING_EPOCHS, BATCH_SIZE, LEARNING_RATE = 500, 200, 100, 1e-3
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Expert(nn.Linear):
    """The last layer of an encoder: features (B, WIDTH) -> mu_m and log V_m, each (B, D)."""

    def __init__(self) -> None:
        super().__init__(WIDTH, 2 * D)

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        return super().forward(features).chunk(2, dim=1)


def hidden(*sizes: int) -> list[nn.Module]:
    """Linear layers of these sizes, each followed by the paper's swish, x sigmoid(x)."""
    return [layer for n, m in pairwise(sizes) for layer in (nn.Linear(n, m), nn.SiLU())]


def encoders() -> dict[str, nn.Module]:
    """Image (B, 1, 28, 28) in [0, 1] -> its expert; text (B,), the class -> its expert (appendix)."""
    image = nn.Sequential(nn.Flatten(), *hidden(784, WIDTH, WIDTH), Expert())
    text = nn.Sequential(nn.Embedding(N_CLASSES, WIDTH), nn.SiLU(), *hidden(WIDTH, WIDTH), Expert())
    return {"image": image, "text": text}


def decoders() -> dict[str, nn.Module]:
    """z (B, D) -> logits of the image (B, 1, 28, 28); z -> logits of the text (B, N_CLASSES) (appendix)."""
    image = nn.Sequential(*hidden(D, WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, 784), nn.Unflatten(1, (1, 28, 28)))
    text = nn.Sequential(*hidden(D, WIDTH, WIDTH, WIDTH), nn.Linear(WIDTH, N_CLASSES))
    return {"image": image, "text": text}


class MVAE(nn.Module):
    """A VAE of M modalities, which it infers from any subset of them.

    Args:
        encoder: by modality, x_m (B, ...) -> mu_m and log V_m, each (B, D).
        decoder: by modality, z (B, D) -> logits of p(x_m|z), (B, ...).
    """

    def __init__(self, encoder: dict[str, nn.Module], decoder: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleDict(encoder), nn.ModuleDict(decoder)

    def forward(self, x: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """The logits of all modalities, for one z ~ q(z|X) of the given ones, and the mean and log V of q, (B, D)."""
        mu, logvar = zip(*(self.encoder[name](x[name]) for name in x), strict=True)
        mu, logvar = product_of_experts(torch.stack(mu), torch.stack(logvar))
        z = mu + (logvar / 2).exp() * torch.randn_like(mu)
        return {name: decoder(z) for name, decoder in self.decoder.items()}, mu, logvar


def product_of_experts(mu: Tensor, logvar: Tensor) -> tuple[Tensor, Tensor]:
    r"""Mean and log V, (B, D), of q(z|X), which is p(z) prod_m N(z; mu_m, V_m) up to a factor (section 2.1).

        T_m = 1 / V_m        V = 1 / (1 + sum_m T_m)        mu = V sum_m T_m mu_m

    The 1 is the precision of the prior.

    Args:
        mu, logvar: of the experts, (M, B, D).
    """
    precision = (-logvar).exp()
    total = 1 + precision.sum(dim=0)
    return (precision * mu).sum(dim=0) / total, -total.log()


def elbo(
    logits: dict[str, Tensor], mu: Tensor, logvar: Tensor, x: dict[str, Tensor], beta: float, lambda_: dict[str, float]
) -> Tensor:
    r"""The ELBO of the modalities in x, (B,), nats.

        ELBO(X) = E_q(z|X) [ sum_m lambda_m log p(x_m|z) ] - beta KL(q(z|X) || p(z))

    Args:
        logits, mu, logvar: what `MVAE.forward` returns; its one z stands for the expectation.
    """
    log_p = sum(lambda_[name] * log_likelihood(logits[name], x[name]) for name in x)
    kl = (mu**2 + logvar.exp() - logvar - 1).sum(dim=1) / 2
    return log_p - beta * kl


def log_likelihood(logits: Tensor, x: Tensor) -> Tensor:
    """log p(x_m|z), (B,), nats: Bernoulli if x (B, ...) are floats, such as pixels, categorical if they are classes.

    From logits, since in float32 the logarithm of a probability near 0 would be infinite.
    """
    if x.is_floating_point():
        nll = F.binary_cross_entropy_with_logits(logits, x, reduction="none")
    else:
        nll = F.cross_entropy(logits.movedim(-1, 1), x, reduction="none")
    return -nll.reshape(len(x), -1).sum(dim=1)


def loss(model: MVAE, x: dict[str, Tensor], beta: float) -> Tensor:
    r"""Minus the sum of each modality's ELBO and that of all, a mean over the batch (eq. 5).

        ELBO(x_1) + ... + ELBO(x_M) + ELBO(x_1, ..., x_M)

    The paper adds ELBOs of random subsets of 2 to M - 1 modalities, which two modalities do not have.
    """
    subsets = [*({name: x[name]} for name in x), x]
    return -sum(elbo(*model(subset), subset, beta, LAMBDA).mean() for subset in subsets)


def main(data_dir: Path) -> None:
    """Train on MNIST's training images and print the mean loss of each epoch."""
    examples = digits("train", data_dir).modalities
    images, labels = examples["image"].to(DEVICE), examples["text"].to(DEVICE)
    torch.manual_seed(0)
    model = MVAE(encoders(), decoders()).to(DEVICE)
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE)
    step = 0
    for epoch in range(EPOCHS):
        total, batches = 0.0, torch.randperm(len(images), device=DEVICE).split(BATCH_SIZE)
        for rows in batches:
            step += 1
            beta = min(1.0, step / (ANNEALING_EPOCHS * len(batches)))
            optimizer.zero_grad()
            batch_loss = loss(model, {"image": images[rows] / 255, "text": labels[rows]}, beta)
            batch_loss.backward()
            optimizer.step()
            total += len(rows) * batch_loss.item()
        print(f"epoch {epoch + 1}: loss {total / len(images):.3f} nats, beta {beta:.3f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, metavar="DATA_DIR")
    try:
        main(parser.parse_args().data_dir)
    except InputError as error:
        parser.exit(2, f"error: {error} (options of mnist/train.py)\n")
