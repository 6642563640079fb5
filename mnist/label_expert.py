"""Why do images sampled given a label show other digits? Compare ways to draw z given the label of a trained model.

    python label_expert.py trained_models --data-dir data --json label_expert.json

The label's expert is refitted with all other networks frozen, to maximise W log p(label|z) - KL(q(z|label) || p(z)) for
each W of --weights. For W = 1 its parameters are also fitted freely for each label: their optimum bounds what a larger
label network can reach. Both are compared with the expert as trained and the label's aggregate posterior (python
sample.py --sampler aggregate). One image is generated for each test label. The table has the share of images that the
classifier of analyse.py assigns to their label; log p(label|z); and the variance of pixels within a label, in % of the
variance within labels of the test images (small if all images of a digit are alike). Writes label_expert.png,
and for each W a model label_expert_W.pth.tar for sample.py.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from common.checkpoints import load_config
from common.errors import option, require, require_positive
from common.io import folder_of, save_tensors
from common.latent_priors import Kind
from common.models import MultimodalVAE
from common.progress import progress_bar
from mnist.aggregate_posterior import from_aggregate_posterior
from mnist.analyse import by_class
from mnist.data import CLASSES, MNIST, load_as_trained
from mnist.model import N_CLASSES
from reports import plots, tables
from reports.analysis import AnalysisConfig
from reports.metrics import Judge
from training import run_from_command_line

import torch
import tyro
from torch import Tensor, nn

DRAWS = 100  # of each label for a step
AT_ONCE = 1000  # images that are decoded and judged at once
ROWS = 2  # images of each label in the picture


@dataclass
class Config(AnalysisConfig):
    weights: tuple[float, ...] = (1.0, 5.0, 50.0)
    """weights W of log p(label|z)"""
    steps: int = 1500
    """steps of Adam for each of them"""
    out_dir: Path | None = field(default=None, kw_only=True)
    """folder to write to. None: the model's, and for the picture samples/ beside the model"""
    # analyse.py's alone
    umap: tyro.conf.Suppress[bool] = False
    n_samples: tyro.conf.Suppress[int] = 1
    mixture: tyro.conf.Suppress[int] = 0
    latent_prior: tyro.conf.Suppress[tuple[Kind, ...]] = ()

    def check(self) -> None:
        super().check()
        require_positive(self, "steps")
        for weight in self.weights:
            require(0 < weight < torch.inf, f"{option('weights')} must be positive numbers, not {weight}")


def main(config: Config) -> dict[str, dict[str, float]]:
    """Report the figures of each way to draw z, {name: {column: value}}."""
    config.check()
    model = config.trained_model(MNIST.name)
    require(
        {"image", "text"} <= set(model.modelled) and model.variational_posterior.has_density,
        f"{config.model} does not model images and labels with densities in closed form: give one that does, such as "
        "mvae or bivcca",
    )
    train, test = (load_as_trained(split, config, MNIST).to(model.device) for split in ("train", "test"))
    test = test.take(slice(config.n_test))
    data = by_class(MNIST, CLASSES)
    judge = data.judges(config, train, data.labels(config, "train", train), model)["image"]
    torch.manual_seed(config.seed)
    folder = config.out_dir or folder_of(config.model)
    folder.mkdir(parents=True, exist_ok=True)
    ways = {"q(z|label), as trained": (model, drawn_from(model))}
    for weight in config.weights:
        refitted = refit(model, weight, config.steps)
        ways[f"q(z|label), refitted, W = {weight:g}"] = (refitted, drawn_from(refitted))
        content = {"experiment": MNIST.name, "config": load_config(config.model), "state_dict": refitted.state_dict()}
        path = folder / f"label_expert_{weight:g}.pth.tar"
        save_tensors(path, content)
        print(path)
    free = refit(model, 1, config.steps, FreeParameters(model.encoder["text"]))
    ways["q(z|label), free parameters, W = 1"] = (free, drawn_from(free))
    ways["aggregate posterior"] = (model, partial(from_aggregate_posterior, model, train))
    labels, images = test.modalities["text"], test[:].modalities["image"]
    test_variance = within_labels(images, labels)
    figures = {name: measured(*way, labels, judge, test_variance) for name, way in ways.items()}
    _report(config, figures, len(test))
    _picture(config.samples_dir / "label_expert.png", ways)
    return figures


def drawn_from(model: MultimodalVAE) -> Callable[[Tensor], Tensor]:
    """Labels (B,) -> a draw of q(z|label) for each, (B, D)."""
    return lambda labels: model.posterior({"text": labels}).sample()


class FreeParameters(nn.Module):
    """The parameters of q(z|label), free for each label, from those that a label encoder gives."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        device = next(encoder.parameters()).device
        with torch.no_grad():
            given = encoder(torch.arange(N_CLASSES, device=device))
        self.of_labels = nn.ParameterList(x.clone() for x in given)

    def forward(self, label: Tensor) -> tuple[Tensor, ...]:
        return tuple(x[label] for x in self.of_labels)


def refit(model: MultimodalVAE, weight: float, steps: int, encoder: nn.Module | None = None) -> MultimodalVAE:
    """A copy of the model whose label encoder maximises weight * log p(label|z) - KL(q(z|label) || p(z)).

    Args:
        encoder: labels (N,) -> the parameters of q(z|label), where to begin, copied; None for the model's own.
    """
    model = deepcopy(model)
    if encoder is not None:
        model.encoder["text"] = deepcopy(encoder)
    model.requires_grad_(False)
    encoder = model.encoder["text"].requires_grad_(True)
    optimizer = torch.optim.Adam(encoder.parameters(), lr=1e-3)
    labels = torch.arange(N_CLASSES, device=model.device).repeat(DRAWS)
    for _ in progress_bar(range(steps), desc=f"label expert, W = {weight:g}", unit=" steps"):
        q = model.posterior({"text": labels})
        z = q.rsample()
        log_p = model.decode(z, ["text"])["text"].log_prob(labels)
        loss = (q.log_prob(z) - model.prior().log_prob(z) - weight * log_p).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.requires_grad_(False)


@torch.no_grad()
def measured(
    model: MultimodalVAE, draw: Callable[[Tensor], Tensor], labels: Tensor, judge: Judge, test_variance: float
) -> dict[str, float]:
    """The figures of one way to draw z given test labels (N,).

    Args:
        test_variance: the variance of the test images within labels.
    """
    images, log_p, right = [], [], []
    for part in labels.split(AT_ONCE):
        p = model.decode(draw(part), ["image", "text"])
        images.append(p["image"].mean)
        log_p.append(p["text"].log_prob(part))
        right.append(judge.read({"image": images[-1]})[:, 0] == part)
    return {
        "recognised": torch.cat(right).double().mean().item(),
        "log p(label|z)": torch.cat(log_p).double().mean().item(),
        "variance": within_labels(torch.cat(images), labels) / test_variance,
    }


def within_labels(images: Tensor, labels: Tensor) -> float:
    """The variance of pixels within labels, a mean over pixels and images."""
    groups = [images[labels == label].double() for label in labels.unique()]
    return sum((x - x.mean(dim=0)).square().sum().item() for x in groups) / images.numel()


def _report(config: Config, figures: dict[str, dict[str, float]], n: int) -> None:
    title, about = tables.data_scored(config, MNIST.name, None, n, "test label")
    head = (title, "recognised, %", "log p(label|z), nats", "variance within labels, % of the test images'")
    rows = [
        (name, tables.percent(x["recognised"]), f"{x['log p(label|z)']:.3f}", tables.percent(x["variance"]))
        for name, x in figures.items()
    ]
    settings = {"n_examples": n, "steps": config.steps, "seed": config.seed}
    tables.report(config, MNIST.name, [tables.Table("ways", figures, head, rows)], settings, about)


@torch.no_grad()
def _picture(path: Path, ways: dict[str, tuple[MultimodalVAE, Callable[[Tensor], Tensor]]]) -> None:
    """Save images of every label, ROWS for each way to draw z."""
    rows = []
    for model, draw in ways.values():
        labels = torch.arange(N_CLASSES, device=model.device).repeat(ROWS)
        rows += [*model.decode(draw(labels), ["image"])["image"].mean.unflatten(0, (ROWS, N_CLASSES))]
    names = [name if i == 0 else "" for name in ways for i in range(ROWS)]
    plots.image_grid(path, torch.stack(rows), names, title="samples given the labels, 0 to 9 from left to right")
    print(f"\n{path}")


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
