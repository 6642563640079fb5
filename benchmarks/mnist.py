"""Speed of MVAE on MNIST, beside a plain implementation in the originals' manner, alternating in one process.

    python -m benchmarks.mnist        (or `make bench`)

Plain: one forward pass of both encoders and both decoders per ELBO term (three a batch), sums written out, an
unfused Adam, and for end to end a DataLoader over PIL images with ToTensor. Random data of MNIST's shape and size.
"""

import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import tyro
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from common.data import Batch, Examples
from common.objectives import MvaeElbo
from common.runs import RunConfig
from common.torchvision_import import transforms
from common.training import Meter
from mnist.loglike import evaluate
from mnist.model import build


@dataclass
class Config:
    batches: int = 20
    """batches in a round"""
    rounds: int = 20
    """rounds of each implementation, alternating; the first of each warms up and is not counted"""
    images: int = 200
    """images whose likelihoods are estimated"""
    n_samples: int = 1000
    """importance samples an image"""


BATCH_SIZE, LAMBDA_IMAGE, LAMBDA_TEXT = 100, 1.0, 50.0


class Plain(nn.Module):
    """The authors' forward pass: experts, product, sample, both decodes, for whatever is given."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.decoder = model.decoder
        # the authors' label encoder ran for each example
        self.encoder = nn.ModuleDict({"image": model.encoder["image"], "text": nn.Sequential(*model.encoder["text"])})

    def forward(self, image: Tensor | None, text: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        given = image if image is not None else text
        mus, variances = [torch.zeros(len(given), 64)], [torch.ones(len(given), 64)]
        for name, x in (("image", image), ("text", text)):
            if x is not None:
                mu, logvar = self.encoder[name](x)
                mus.append(mu)
                variances.append(logvar.exp() + 1e-8)
        mu, variance = torch.stack(mus), torch.stack(variances)
        precision = 1 / (variance + 1e-8)
        mu, logvar = (mu * precision).sum(dim=0) / precision.sum(dim=0), (1 / precision.sum(dim=0) + 1e-8).log()
        z = mu + torch.randn_like(mu) * (0.5 * logvar).exp()
        return self.decoder["image"](z), self.decoder["text"](z), mu, logvar

    def elbo_loss(self, image: Tensor | None, text: Tensor | None, beta: float) -> Tensor:
        image_logits, text_logits, mu, logvar = self(image, text)
        loss = -0.5 * beta * (1 + logvar - mu**2 - logvar.exp()).sum(dim=1)
        if image is not None:
            x, y = image_logits.flatten(1), image.flatten(1)
            loss = loss + LAMBDA_IMAGE * (x.clamp(min=0) - x * y + (1 + (-x.abs()).exp()).log()).sum(dim=1)
        if text is not None:
            one_hot = F.one_hot(text, 10)
            loss = loss - LAMBDA_TEXT * (one_hot * F.log_softmax(text_logits + 1e-8, dim=1)).sum(dim=1)
        return loss.mean()


class Pictures(Dataset):
    """Images decoded one by one, as torchvision's MNIST gives them to a DataLoader."""

    def __init__(self, examples: Examples) -> None:
        self.images, self.labels = examples.modalities["image"].squeeze(1).numpy(), examples.modalities["text"].tolist()
        self.transform = transforms.ToTensor()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


def main(config: Config) -> None:
    torch.manual_seed(0)
    n = config.batches * BATCH_SIZE
    examples = Examples(
        {"image": torch.randint(256, (n, 1, 28, 28), dtype=torch.uint8), "text": torch.randint(10, (n,))}
    )
    print(
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"batch {BATCH_SIZE}, fp32\n"
    )
    print("| mnist | plain, examples/s | ours, examples/s | ratio | range of the ratio |\n|---|---|---|---|---|")
    batch = examples[:BATCH_SIZE]
    compare("training step", config, lambda: [batch] * config.batches, lambda: [batch] * config.batches)
    compare("end to end", config, lambda: loaded(examples), lambda: shuffled(examples))
    model, some = build(SimpleNamespace(n_latents=64, model="mvae")).eval(), examples.take(slice(config.images))
    seconds = timed(lambda: evaluate(model, some, config.n_samples))
    rate = len(some) / seconds
    print(
        f"\nlog-likelihoods with {config.n_samples} samples: {rate:.1f} images/s, "
        f"{10_000 / rate:.0f} s for 10,000 images"
    )


def loaded(examples: Examples) -> Iterator[Batch]:
    for image, text in DataLoader(Pictures(examples), batch_size=BATCH_SIZE, shuffle=True):
        yield Batch({"image": image, "text": text})


def shuffled(examples: Examples) -> Iterator[Batch]:
    return examples.batches(BATCH_SIZE, torch.randperm(len(examples)))


def compare(name: str, config: Config, plain_data: Callable, our_data: Callable) -> None:
    plain, ours = plain_step(), our_step()
    times = []
    for _ in range(config.rounds):
        pair = []
        for step, data in ((plain, plain_data), (ours, our_data)):
            pair.append(timed(lambda step=step, data=data: [step(batch) for batch in data()]))
        times.append(pair)
    n = config.batches * BATCH_SIZE
    rates = [statistics.median(n / t[i] for t in times[1:]) for i in (0, 1)]
    ratios = sorted(t[0] / t[1] for t in times[1:])
    print(
        f"| {name} | {rates[0]:,.0f} | {rates[1]:,.0f} | {statistics.median(ratios):.2f} "
        f"| {ratios[0]:.2f} to {ratios[-1]:.2f} |"
    )


def plain_step() -> Callable[[Batch], None]:
    plain = Plain(build(SimpleNamespace(n_latents=64, model="mvae")))
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3, foreach=False)

    def step(batch: Batch) -> None:
        image, text = batch.modalities["image"], batch.modalities["text"]
        optimizer.zero_grad()
        loss = sum(plain.elbo_loss(*given, beta=0.5) for given in ((image, text), (image, None), (None, text)))
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def our_step() -> Callable[[Batch], None]:
    objective = MvaeElbo(
        build(SimpleNamespace(n_latents=64, model="mvae")), weights={"image": LAMBDA_IMAGE, "text": LAMBDA_TEXT}
    )
    optimizer = torch.optim.Adam(objective.parameters(), lr=1e-3, fused=True)
    meter = Meter()

    def step(batch: Batch) -> None:
        loss, bound = objective.loss(batch, beta=0.5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        meter.add(bound)
        if len(meter.pending) == RunConfig.log_interval:
            meter.check("in the benchmark")

    return step


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
