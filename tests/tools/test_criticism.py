"""The report on an estimator, against models whose predictions are known."""

import warnings

from common.errors import InputError
from tools import criticism
from tools.criticism import criticise
from tools.estimator import Continuous, Labels, MultimodalEstimator

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

WIDE, NOISE = 3.0, 0.5


class Given(nn.Module):
    """Mean and log-variance of q(z|x): the first column, almost without error."""

    def forward(self, x):
        return x[:, :1], torch.full_like(x[:, :1], -20.0)


class Same(nn.Module):
    """z as the location of each column, with a fixed scale."""

    def __init__(self, columns, scale):
        super().__init__()
        self.columns, self.log_scale = columns, nn.Parameter(torch.tensor(float(np.log(scale))))

    def forward(self, z):
        return torch.cat([z.expand(-1, self.columns), self.log_scale.expand(len(z), self.columns)], dim=1)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """a is z; b is z and noise of 0.5, which the model knows; c is the same, but the model thinks that it is 3."""
    random = np.random.default_rng(0)
    z = random.normal(size=2000)
    x = {"a": z[:, None]} | {name: (z + NOISE * random.normal(size=2000))[:, None] for name in "bc"}
    x = {name: values / values.std() for name, values in x.items()}
    x["y"] = (z > 0).astype(int)
    x["c"][:100] = np.nan
    scales = {"a": 0.01, "b": NOISE / np.sqrt(1 + NOISE**2), "c": WIDE}
    networks = {name: (lambda d: Given(), lambda d, s=scale: Same(1, s)) for name, scale in scales.items()}
    kinds = {name: Continuous(1) for name in "abc"} | {"y": Labels(2)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        vae = MultimodalEstimator(kinds, n_latents=1, epochs=1, lr=1e-12, networks=networks, verbose=False).fit(x)
    folder = tmp_path_factory.mktemp("report")
    return x, folder, criticise(vae, x, folder, colour=x["y"]), vae


def test_scores_are_those_of_the_predictions(report):
    x, _, found, _ = report
    assert list(found["scores"]) == ["a", "b", "c", "y", "all others"]
    assert found["scores"]["a"]["a"] == pytest.approx(1, abs=1e-3)
    for source, target in ("ab", "ac", "bc"):
        there = ~np.isnan(x[target][:, 0]) & ~np.isnan(x[source][:, 0])
        a, b = x[source][there, 0], x[target][there, 0]
        expected = 1 - ((a - b) ** 2).sum() / ((b - b.mean()) ** 2).sum()
        assert found["scores"][source][target] == pytest.approx(expected, abs=0.02), (source, target)
    assert found["chance"]["a"] == 0 and 0.5 <= found["chance"]["y"] < 0.53


def test_intervals_of_known_noise_hold_their_share_and_wide_ones_more(report):
    """Given a alone in effect, b is z and its noise."""
    _, _, found, _ = report
    of_b, of_c = found["coverage"]["b"], found["coverage"]["c"]
    for level, share in {"50%": 0.5, "80%": 0.8, "95%": 0.95}.items():
        assert of_b[level] == pytest.approx(share, abs=0.07)
    assert min(of_c.values()) > 0.98 and "y" not in found["coverage"]


def test_log_p_is_the_mean_over_the_rows_that_have_the_modality(report):
    x, _, found, vae = report
    log_p, stderr = (values[100:] for values in vae.score_samples({"c": x["c"]}, 500))
    assert found["log p"]["c"]["mean"] == pytest.approx(log_p.mean())
    assert found["log p"]["c"]["stderr"] == pytest.approx(log_p.std(ddof=1) / 1900**0.5)
    assert found["log p"]["c"]["uncertain"] == pytest.approx((1 / (stderr**2 + 1 / 500) < 2).mean(), abs=1e-3)
    assert found["log p"]["a"]["uncertain"] > 0.5, "an almost exact a is explained by few samples"
    assert list(found["log p"]) == ["all", "a", "b", "c", "y"]


def test_all_others_leave_the_target_out(report):
    """b is predicted from a and the rest: a's noise is nothing. Given b too, the score would not be that of z alone."""
    x, _, found, vae = report
    for target in "ac":
        others = tuple(name for name in "abcy" if name != target)
        there = ~np.isnan(x[target][:, 0])
        predicted = vae.predict(x, target, given=others)[there, 0]
        error, spread = ((x[target][there, 0] - y) ** 2 for y in (predicted, x[target][there, 0].mean()))
        assert found["scores"]["all others"][target] == pytest.approx(1 - error.sum() / spread.sum(), abs=0.02)
    assert found["scores"]["all others"]["a"] < 0.95 < found["scores"]["a"]["a"]


def test_the_page_has_the_picture_and_the_figures(report):
    _, folder, found, _ = report
    page = (folder / "criticism.html").read_text()
    assert "data:image/png;base64," in page and f"<td>{found['scores']['b']['c']:.3f}</td>" in page
    assert (folder / "criticism.png").stat().st_size > 1000


@pytest.mark.parametrize("colour", [None, np.arange(2000.0), pd.Series(["u", "v"] * 1000)])
def test_any_colour(report, tmp_path, colour):
    x, _, found, vae = report
    assert criticise(vae, x, tmp_path, colour, n_draws=2)["scores"] == found["scores"]
    assert (tmp_path / "criticism.png").exists()


def test_a_series_colours_the_rows_by_their_names(report, tmp_path, monkeypatch):
    x, _, _, vae = report
    names = [f"row {i}" for i in range(2000)]
    tables = {name: pd.DataFrame(x[name], names) for name in "abc"} | {"y": pd.Series(x["y"], names)}
    colour, seen = pd.Series(x["y"], names)[::-1], []
    monkeypatch.setattr(
        criticism, "draw", lambda path, figures, z, colour: seen.append(colour) or path.write_bytes(b"")
    )
    criticise(vae, tables | {"a": tables["a"].iloc[60:]}, tmp_path, colour, n_draws=2)
    joined = [*names[60:], *names[:60]]
    assert seen[0].index.tolist() == joined and seen[0].tolist() == tables["y"].loc[joined].tolist()


def test_what_is_not_there_is_refused(report, tmp_path):
    x, _, _, vae = report
    with pytest.raises(InputError, match="X lacks c, y: a report needs all modalities"):
        criticise(vae, {name: x[name] for name in "ab"}, tmp_path)
    with pytest.raises(InputError, match="colour must have 2000 values, one for each row"):
        criticise(vae, x, tmp_path, colour=[1])
    with pytest.raises(InputError, match="fewer than two rows have c: a report needs all modalities"):
        criticise(vae, x | {"c": np.full((2000, 1), np.nan)}, tmp_path)
    assert not list(tmp_path.iterdir())
