"""PolyMNIST-Quadrant: images against their definition, and what the probe reads from latents of known content."""

import json

from common.data import Examples
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from polymnist import analyse, data, sample, train
from polymnist.options import DatasetOptions
from polymnist.quadrants import in_quadrants
from reports.subsets import Posteriors
from tests.helpers.data_config import data_config
from tests.helpers.scripts import call

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate, one_hot

N, NAMES = 400, ("m0", "m1", "m2")
# red and green are the row and the column of a pixel
PLACES = torch.stack([*torch.meshgrid(torch.arange(70), torch.arange(80), indexing="ij"), torch.full((70, 80), 200)])
BACKGROUND = PLACES.to(torch.uint8)
DIGITS = torch.randint(256, (N, 28, 28), generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def cells_of(images):
    """The four quadrants of each image, (N, 4, 3, 32, 32)."""
    return images.view(-1, 3, 2, 32, 2, 32).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


@pytest.mark.parametrize("m", range(10))
def test_digits_lie_in_their_quadrants(m):
    images, quadrants = in_quadrants(DIGITS, m, BACKGROUND, torch.Generator().manual_seed(m))
    assert images.dtype == torch.uint8 and images.shape == (N, 3, 64, 64) and quadrants.dtype == torch.int64
    assert quadrants.bincount().min() > N / 8 and len(quadrants.bincount()) == 4
    digits = interpolate(DIGITS[:, None].float(), size=(32, 32), mode="bilinear").round()[:, 0]  # (N, 32, 32)
    for i in range(0, N, 13):
        q, cells = quadrants[i], cells_of(images[i])[0]
        y, x = cells[3 - q, :2, 0, 0].tolist()  # of the quadrant that lies across
        y, x = y - 32 * (1 - q // 2), x - 32 * (1 - q % 2)
        assert 0 <= y < 6 and 0 <= x < 16, "the last place is never drawn"
        crop = BACKGROUND[:, y : y + 64, x : x + 64]
        shown, behind = digits[i] > 16, cells_of(crop[None].contiguous())[0]
        for other in {0, 1, 2, 3} - {int(q)}:
            assert cells[other].equal(behind[other])
        colour = {0: 0, 4: 2}.get(m)
        for c in range(3):
            drawn = 255 - behind[q, c].int() if colour is None else digits[i].int() * (c == colour)
            assert cells[q, c].int().equal(torch.where(shown, drawn, behind[q, c].int())), (i, c)


def test_quadrants_are_drawn_anew_for_each_image():
    config = data_config("", DatasetOptions(quadrant=True, n_modalities=3), demo=True, limit=300)
    found = data.load("train", config).modalities
    assert set(found) == {"m0", "m1", "m2", "digit", "quadrant_m0", "quadrant_m1", "quadrant_m2"}
    assert all(found[name].shape == (300, 3, 64, 64) and found[f"quadrant_{name}"].shape == (300,) for name in NAMES)
    for a, b in (("m0", "m1"), ("m0", "m2"), ("m1", "m2")):
        assert abs((found[f"quadrant_{a}"] == found[f"quadrant_{b}"]).float().mean() - 0.25) < 0.1
    plain = data.load("train", data_config("", DatasetOptions(n_modalities=3), demo=True, limit=300)).modalities
    assert plain["digit"].equal(found["digit"])


class Read(nn.Module):
    """An image (N, 14), the one-hot digit and quadrant -> means of the latents, in this order or the other one."""

    def __init__(self, swapped):
        super().__init__()
        self.swapped = swapped

    def forward(self, x):
        mu = x.roll(4, dims=1) if self.swapped else x
        return mu, torch.full_like(mu, -10.0)


def probed(private, swapped=False):
    """The figures of the probe for a model whose shared latents are the digit and whose private ones the quadrant."""

    def examples(n):
        items = {"digit": torch.randint(10, (n,))} | {f"quadrant_{m}": torch.randint(4, (n,)) for m in NAMES}
        shown = {m: torch.cat([one_hot(items["digit"], 10), one_hot(items[f"quadrant_{m}"], 4)], dim=1) for m in NAMES}
        return Examples({m: x.float() for m, x in shown.items()} | items)

    n_private = (10 if swapped else 4) if private else 0
    model = VAE(
        "poe",
        encoder={m: Read(swapped) for m in NAMES},
        decoder={m: nn.Linear(14, 14) for m in NAMES},
        likelihood=GroupedLikelihood(**{m: SphericalGaussianLikelihood(1.0) for m in NAMES}),
        latent_dim=14 - n_private + 3 * n_private,
        private=dict.fromkeys(NAMES, n_private) if private else None,
    )
    splits = {"train": examples(2000), "test": examples(3000)}
    posteriors = (Posteriors(model, x.only(NAMES), x.modalities["digit"][:, None]) for x in splits.values())
    (table,) = analyse.probe(*posteriors, splits)
    assert table.key == "probe" and [row[0] for row in table.rows] == (["z", "w"] if private else ["z"])
    return table.figures


@pytest.mark.parametrize("swapped", [False, True])
def test_the_probe_tells_what_shared_and_private_latents_hold(swapped):
    z, w = ("w", "z") if swapped else ("z", "w")
    figures = probed(private=True, swapped=swapped)
    assert figures[f"{z} -> digit"] == figures[f"{w} -> quadrant"] == 1
    assert figures[f"{z} -> quadrant"] == pytest.approx(0.25, abs=0.03)
    assert figures[f"{w} -> digit"] == pytest.approx(0.1, abs=0.03)


def test_without_private_latents_shared_ones_alone_are_read():
    assert probed(private=False) == {"z -> digit": 1, "z -> quadrant": 1}


def test_the_scripts(tmp_path):
    small = ("--demo", "--data-dir", tmp_path, "--quadrant", "--limit", 24, "--n-modalities", 2)
    of_model = ("--model", "mmvae+", "--networks", "small", "--n-latents", 4, "--n-private", 3, "--epochs", 1)
    call(train, *small, *of_model, "--batch-size", 12, "--save-dir", tmp_path / "run")
    call(sample, tmp_path / "run", *small, "--given", "m1")
    scored = ("--n-test", 20, "--n-samples", 5, "--no-umap", "--json", tmp_path / "scores.json")
    call(analyse, tmp_path / "run", *small, *scored)
    assert (tmp_path / "run/samples/from_m1.png").exists()
    probe = json.loads((tmp_path / "scores.json").read_text())["probe"]
    assert list(probe) == ["z -> digit", "z -> quadrant", "w -> digit", "w -> quadrant"]
    assert all(0 <= x <= 1 for x in probe.values())
