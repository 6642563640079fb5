"""Every objective of every fusion and family: bounds, terms and gradients on six examples, most of them incomplete.

Parameters follow from their names, so that neither the order in which networks are made nor their initialisation
matters. The means of bound and terms over the examples, and the gradients' norms by piece, are kept.
"""

import zlib
from types import SimpleNamespace

from common.encoders_decoders import ConcatLayer, SplitLinearLayer
from common.likelihoods import BernoulliLikelihood, GroupedLikelihood, LaplaceLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.models.choices import MODELS
from common.models.families import FAMILIES
from common.models.fusions import FUSIONS
from common.models.objectives import OBJECTIVES, make_objective, with_default
from common.variational_strategies import SetStrategy, UnstructuredStrategy
from tests.golden import check
from tests.helpers.fusions import learns_prior

import pytest
import torch
from torch import nn

D, N_PRIVATE, N_FEATURES, HIDDEN = 3, 2, 3, 5
LAMBDAS = {"a": 2.0, "b": 0.5}
ABSENT = {2: {"a": (1, 3), "b": (2,)}, 3: {"a": (1, 3), "b": (2, 4), "c": (1, 2, 3)}}  # rows, by number of modalities
COMPLETE = ("jmvae", "student", "telbo", "jnf")  # objectives that take no incomplete examples
POOLED = ("helvae", "wb", "mwb", "hoelder", "code")
WITH_PRIVATE = ("poe", "product", "quotient", "moe", "mopoe", "mopoe-published", *POOLED)
ALL_SHARED = ("mmjsd", "mmvm", "mmvm-mixture")  # objectives of models without private latents


class Joint(nn.Module):
    """A linear encoder of several modalities."""

    def __init__(self, n, heads):
        super().__init__()
        self.layer = SplitLinearLayer(n * N_FEATURES, heads)

    def forward(self, *xs):
        return self.layer(torch.cat(xs, dim=1))


class Encoding(nn.Linear):
    """What a set or an unstructured strategy takes of a modality."""

    def forward(self, x):
        return (super().forward(x),)


class Conditioned(nn.Linear):
    """A CVAE's decoder."""

    def forward(self, z, x):
        return super().forward(torch.cat([z, x], dim=1))


def model_of(fusion, family, private=False, n_clusters=None, name=None):
    """A model of linear networks of two modalities or three; name: "vae" or "cvae"."""
    names = "ab" if family == "laplace-normal" or fusion == "joint" or name else "abc"
    n_private = N_PRIVATE if private or FUSIONS[fusion].auxiliary else 0
    n_params = FAMILIES[family].n_params
    heads, strategy = (D + n_private,) * n_params, fusion
    encoder = {m: SplitLinearLayer(N_FEATURES, heads) for m in names}
    decoder = {m: nn.Linear(D + n_private, N_FEATURES) for m in names}
    if name == "vae":
        encoder, decoder = {"a": encoder["a"]}, {"a": decoder["a"]}
    if name == "cvae":
        encoder = {"a,b": Joint(2, heads), "b": encoder["b"]}
        decoder = {"a|b": Conditioned(D + N_FEATURES, N_FEATURES)}
    elif fusion in ("own", "joint", "jnf") and name is None:
        pairs = [f"{a},{b}" for i, a in enumerate(names) for b in names[i + 1 :]]
        for key in [*(pairs if fusion == "own" and len(names) > 2 else []), ",".join(names)]:
            encoder[key] = Joint(key.count(",") + 1, heads)
    elif fusion == "set":
        encoder = {m: Encoding(N_FEATURES, HIDDEN) for m in names}
        strategy = SetStrategy(nn.Sequential(nn.Tanh(), SplitLinearLayer(HIDDEN, heads)))
    elif fusion == "unstructured":
        encoder = {m: Encoding(N_FEATURES, HIDDEN) for m in names}
        head = nn.Sequential(ConcatLayer(), SplitLinearLayer(len(names) * (HIDDEN + 1), heads))
        strategy = UnstructuredStrategy(head)
    likelihoods = {"a": SphericalGaussianLikelihood(0.7), "b": LaplaceLikelihood(0.75), "c": BernoulliLikelihood()}
    model = VAE(
        strategy,
        encoder,
        decoder,
        GroupedLikelihood(**{m: likelihoods[m] for m in names}),
        latent_dim=D + n_private * len(names),
        posterior=family,
        learn_prior=learns_prior(fusion, family) and n_clusters is None,
        private=dict.fromkeys(names, n_private) if n_private else None,
        n_clusters=n_clusters,
    ).double()
    for key, p in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        p.data = 0.5 * torch.randn(p.shape, generator=generator, dtype=torch.float64)
    return model.train()


def inputs_of(model, complete):
    """Six examples."""
    names, generator = model.modalities, torch.Generator().manual_seed(5)
    inputs = {m: torch.rand(6, N_FEATURES, generator=generator, dtype=torch.float64) for m in names}
    for m, rows in ({} if complete or len(names) == 1 else ABSENT[len(names)]).items():
        inputs[m][list(rows)] = torch.nan
    return inputs


def figures(model, obj, **options):
    """The bound with beta 1 and 1/2, the terms, and the norm of the gradient by piece."""
    given = {"K": 3, "looser": False, "dreg": None, "approx_m": 0, "alpha": 0.3}
    weights = {name: weight for name, weight in LAMBDAS.items() if name in model.modalities}
    objective = make_objective(obj, model, SimpleNamespace(**given | options), weights)
    inputs, found = inputs_of(model, obj in COMPLETE), {}
    for beta in (1.0, 0.5):
        torch.manual_seed(0)
        model.zero_grad()
        loss, bound = objective.loss(inputs, beta)
        loss.backward()
        found[f"bound, beta {beta:g}"] = bound.value.mean().item()
        found["terms"] = {name: x.mean().item() for name, x in bound.terms.items()}
        for name, piece in model.named_children():
            of_piece = [p.grad for p in piece.parameters() if p.grad is not None]
            if of_piece:
                found[f"gradient of {name}, beta {beta:g}"] = nn.utils.get_total_norm(of_piece).item()
    return found


def variants(obj, fusion):
    """The options that change an objective, {name: options}."""
    looser = {"": {}, ", looser": {"looser": True}} if FUSIONS[fusion].is_mixture else {"": {}}
    if obj == "dreg":
        rules = ("exact", "stop-all", "published")
        return {f" {rule}{name}": options | {"dreg": rule} for name, options in looser.items() for rule in rules}
    if obj in ("iwae", "stl"):
        return looser
    return {"": {}, ", 1 random subset": {"approx_m": 1}} if obj == "mvae" else {"": {}}


def exists(fusion, family, obj):
    record = OBJECTIVES[obj]
    fits = (family.has_density or not record.needs_density) and (family.is_gaussian or not record.gaussian)
    return FUSIONS[fusion].exists(family) and fusion in record.fusions and fits


@pytest.mark.parametrize("fusion", FUSIONS)
def test_objectives_of_a_fusion(fusion):
    found = {}
    for family, record in FAMILIES.items():
        for private in (False, True) if record.private_latents and fusion in WITH_PRIVATE else (False,):
            for obj in (
                obj for obj in OBJECTIVES if exists(fusion, record, obj) and not (private and obj in ALL_SHARED)
            ):
                for name, options in variants(obj, fusion).items():
                    key = f"{family}{', private latents' if private else ''}: {obj}{name}"
                    found[key] = figures(model_of(fusion, family, private), obj, **options)
    check(f"objectives/{fusion}", found)


def test_objectives_of_models_that_are_more_than_a_fusion():
    found = {}
    for name in ("vae", "cvae"):
        for obj in (with_default(MODELS[name])[0], "dreg", "iwae", "stl"):
            found[f"{name}: {obj}"] = figures(model_of("own", "gaussian", name=name), obj)
    for family in ("gaussian", "laplace"):
        for obj in ("iwae", "dreg", "stl"):
            for looser in (False, True):
                model = model_of("mmvae+", family, private=True, n_clusters=4)
                found[f"cmvae, {family}: {obj}{', looser' if looser else ''}"] = figures(model, obj, looser=looser)
    for fusion, obj in (("joint", "jmvae"), ("product", "mvtcae"), ("moe", "iwae")):
        found[f"{obj} by default"] = figures(model_of(fusion, "gaussian"), obj, K=None, alpha=None)
    check("objectives/models", found)
