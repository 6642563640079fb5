"""Like modalities whose networks are one: the same numbers as with a network for each, in a single run."""

import copy

from common.data import Batch
from common.encoders_decoders import SplitLinearLayer, StackedDecoder, StackedLinear
from common.execution.rows import Rows
from common.execution.score import score
from common.likelihoods import BinaryLikelihood, GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.objectives import ArElbo, DregIwaeElbo, IwaeElbo, MmvaeElbo, MvaeElbo

import pytest
import torch
from torch import nn

D, H, N = 3, 5, 4
LIKE = ("p", "q", "r", "s")
KEY = ",".join(LIKE)


class StackedEncoder(nn.Module):
    n_elements = N

    def __init__(self):
        super().__init__()
        self.embedding, self.heads = nn.Parameter(torch.randn(N, 2, H)), StackedLinear(N, H, 2 * D)

    def forward(self, x):
        return self.heads(self.embedding)[torch.arange(N), x].chunk(2, dim=-1)


class OneEncoder(nn.Module):
    def __init__(self, stacked, i):
        super().__init__()
        self.embedding, self.linear = nn.Parameter(stacked.embedding[i].detach().clone()), nn.Linear(H, 2 * D)
        self.linear.weight.data, self.linear.bias.data = stacked.heads.weight[i].data, stacked.heads.bias[i, 0].data

    def forward(self, x):
        return self.linear(self.embedding[x]).chunk(2, dim=-1)


def one_decoder(stacked, i):
    linear = nn.Linear(D, H), nn.Linear(H, 1)
    for ours, theirs in zip(linear, (stacked.network[0], stacked.network[2]), strict=True):
        ours.weight.data, ours.bias.data = theirs.weight[i].data, theirs.bias[i, 0].data
    return nn.Sequential(linear[0], nn.SiLU(), linear[1], nn.Flatten(0))


def models(fusion="poe"):
    """The stacked model, and the same with networks of its own for each modality."""
    encoder = StackedEncoder()
    decoder = StackedDecoder(nn.Sequential(StackedLinear(N, D, H), nn.SiLU(), StackedLinear(N, H, 1), nn.Flatten()))
    image_encoder, image_decoder = SplitLinearLayer(6, (D, D)), nn.Linear(D, 6)
    likelihood = {"image": SphericalGaussianLikelihood(0.7)} | {name: BinaryLikelihood() for name in LIKE}
    stacked = VAE(
        fusion,
        {"image": image_encoder, KEY: encoder},
        {"image": image_decoder, KEY: decoder},
        GroupedLikelihood(**likelihood),
        D,
    )
    apart = VAE(
        fusion,
        {"image": copy.deepcopy(image_encoder)} | {name: OneEncoder(encoder, i) for i, name in enumerate(LIKE)},
        {"image": copy.deepcopy(image_decoder)} | {name: one_decoder(decoder, i) for i, name in enumerate(LIKE)},
        GroupedLikelihood(**likelihood),
        D,
    )
    return stacked.double(), apart.double()


def inputs(n=7):
    return {"image": torch.randn(n, 6).double()} | {name: torch.randint(2, (n,)) for name in LIKE}


def partly(x):
    """Some of the modalities of some of the examples."""
    x = {name: value.clone() for name, value in x.items()}
    x["image"][1], x["q"][2], x["s"][:4] = torch.nan, -1, -1
    for name in x:
        x[name][5] = -1 if x[name].dtype == torch.int64 else torch.nan
    return x


def test_stacked_layers_are_layers_side_by_side():
    stacked, x = StackedLinear(N, 3, 2), torch.randn(N, 6, 3)
    for i in range(N):
        expected = nn.functional.linear(x[i], stacked.weight[i], stacked.bias[i, 0])
        torch.testing.assert_close(stacked(x)[i], expected)
        torch.testing.assert_close(stacked(x[0])[i], nn.functional.linear(x[0], stacked.weight[i], stacked.bias[i, 0]))


OBJECTIVES = {
    "mvae, random subsets": ("poe", MvaeElbo, {"K": 3}),
    "ar": ("poe", ArElbo, {}),
    "iwae": ("poe", IwaeElbo, {"K": 4}),
    "dreg": ("moe", DregIwaeElbo, {"K": 4}),
    "mixture": ("moe", MmvaeElbo, {}),
}


@pytest.mark.parametrize("given", ["some absent", "only s and image"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_all_bounds_are_those_of_networks_apart(name, given):
    fusion, objective, options = OBJECTIVES[name]
    x = inputs()
    x = partly(x) if given == "some absent" else {"s": x["s"], "image": x["image"]}
    bounds, gradients = [], []
    for model in models(fusion):
        torch.manual_seed(1)
        weights = {"image": 0.5, "p": 2.0, "q": 3.0}
        if options.get("K") == 3:
            options = options | {"generator": torch.Generator().manual_seed(3)}
        goal = objective(model, weights=weights, **options)
        loss, bound = goal.loss(x, beta=0.7)
        loss.backward()
        bounds.append(bound)
        apart = "q" in model.encoder
        of_q = model.encoder["q"].embedding if apart else model.encoder[KEY].embedding
        some = [model.encoder["image"].linear.weight, model.decoder["image"].weight, of_q]
        some = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
        gradients.append([*some[:2], some[2] if apart else some[2][LIKE.index("q")]])
    torch.testing.assert_close(bounds[0].value, bounds[1].value)
    assert list(bounds[0].terms) == list(bounds[1].terms)
    for term in bounds[0].terms:
        torch.testing.assert_close(bounds[0].terms[term], bounds[1].terms[term])
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_pass_runs_each_network_once():
    model, _ = models()
    runs = []
    for part in (model.encoder, model.decoder):
        part[KEY].register_forward_hook(lambda module, args, out: runs.append(args[0].shape))
    MvaeElbo(model, K=2)(inputs())
    assert runs == [(7, N), (N, 4 * 7, D)], "of each example its values; of each attribute its own term, all, two more"


def test_posteriors_decodings_and_reconstructions_are_by_name():
    stacked, apart = models()
    x = inputs()
    for given in (("image",), ("q",), ("p", "s"), ("image", *LIKE)):
        torch.testing.assert_close(stacked.posterior(x, given).mean, apart.posterior(x, given).mean)
    z = torch.randn(2, 7, D).double()
    for ours, theirs in zip(stacked.decode(z).values(), apart.decode(z).values(), strict=True):
        torch.testing.assert_close(ours.mean, theirs.mean)
    assert list(stacked.decode(z, ["r"])) == ["r"]
    found = stacked.reconstruct({"q": x["q"]})
    assert found["s"].dtype == torch.int64 and found["s"].shape == (7,)
    assert set(found["s"].tolist()) <= {0, 1}
    torch.testing.assert_close(found["s"], apart.reconstruct({"q": x["q"]})["s"])


def test_a_stack_of_vectors_decodes_each_at_its_own_z():
    decoder = StackedDecoder(StackedLinear(N, D, 6))
    likelihood = GroupedLikelihood(**{name: SphericalGaussianLikelihood(0.7) for name in LIKE})
    model = VAE("poe", {KEY: StackedEncoder()}, {KEY: decoder}, likelihood, D)
    z, x = torch.randn(N, 2, 7, D), torch.randn(7, 6)
    scored = score(
        model,
        Batch(dict.fromkeys(LIKE, x)),
        z.transpose(0, 1),
        Rows((), torch.eye(N, dtype=torch.bool), None, torch.eye(N, dtype=torch.bool)[:, None]),
    )
    scored = {name: values.transpose(0, 1) for name, values in scored.items()}
    for i, name in enumerate(LIKE):
        mean = z[i] @ decoder.network.weight[i].T + decoder.network.bias[i, 0]
        torch.testing.assert_close(scored[name][i], likelihood[name](mean).log_prob(x))
        assert (scored[name][torch.arange(N) != i] == 0).all()
