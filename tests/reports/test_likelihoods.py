"""Log-likelihoods of subsets, against the exact ones of linear-Gaussian models."""

from common.errors import InputError
from common.subsets import named_subsets
from reports.likelihoods import likelihood_given, likelihoods_by_size
from tests.helpers.linear_gaussian import draw, exact_log_p, linear_gaussian
from tests.helpers.private_latents import private_linear_gaussian

import pytest
import torch


def test_the_exact_posterior_gives_exact_values():
    model, weights, scales = linear_gaussian(3)
    x = draw(weights, scales, 6)
    exact = {names: exact_log_p(weights, scales, x, names) for names in named_subsets("abc")}
    rows = likelihood_given(model, x, ("c", "a"), ("b",), n_samples=1)
    assert list(rows) == ["log p(a,b,c), z from q(z|a,b,c)", "log p(b), z from q(z|b)", "log p(a,c|b)"]
    torch.testing.assert_close(rows["log p(a,c|b)"], exact["a", "b", "c"] - exact["b",])
    torch.testing.assert_close(
        likelihood_given(model, x, ("c",), (), n_samples=1), {"log p(c), z from q(z|c)": exact["c",]}
    )
    rows = likelihoods_by_size(model, x, n_samples=1)
    assert list(rows) == [
        *(f"log p(x_S), S of {n}" for n in (1, 2, 3)),
        *(f"log p(x_T|x_S), S of {n}, T all others" for n in (1, 2)),
    ]
    means = {n: torch.stack([v for names, v in exact.items() if len(names) == n]).mean(dim=0) for n in (1, 2, 3)}
    for n, mean in means.items():
        torch.testing.assert_close(rows[f"log p(x_S), S of {n}"], mean)
    torch.testing.assert_close(rows["log p(x_T|x_S), S of 2, T all others"], means[3] - means[2])


def test_a_string_does_not_name_its_letters():
    with pytest.raises(InputError, match=r"name modalities in tuples: \('bc',\), not 'bc'"):
        likelihood_given(*private_linear_gaussian()[:1], {}, ("a",), "bc")


@pytest.mark.parametrize("fusion", ["poe", "moe"])
def test_private_latents_count(fusion):
    """The posterior of poe is exact; samples of moe's, in which no expert knows the prior, come near."""
    model, matrices, scales = private_linear_gaussian(fusion)
    x = draw(matrices, scales, 4)
    joint, marginal = (exact_log_p(matrices, scales, x, names) for names in (("a", "b", "c"), ("a", "c")))
    n, error = (1, 1e-9) if fusion == "poe" else (20_000, 0.2)
    rows = likelihood_given(model, x, ("b",), ("a", "c"), n_samples=n)
    torch.testing.assert_close(rows["log p(b|a,c)"], joint - marginal, rtol=0, atol=error)
