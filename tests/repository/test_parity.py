"""The original authors' networks and formulas, reproduced on weights and inputs made by tests/reference/fill.py."""

import json
import math
from argparse import Namespace
from functools import partial
from pathlib import Path

from celeba.attributes import ATTRIBUTES
from common.checkpoints import load_config, load_model
from common.errors import InputError
from common.objectives import IwaeElbo
from tests.helpers.authors import REFERENCE, authors_file
from tests.reference import fill

import pytest
import torch
from torch.distributions import kl_divergence
from torch.nn import functional as F

VALUES = json.loads((REFERENCE / "values.json").read_text())


def check(tensor, expected):
    tensor = tensor.double().reshape(expected["shape"])
    # the relative error of a sum is that of its terms: sums can cancel to nearly nothing
    scale = tensor.abs().sum().item()
    assert tensor.sum().item() == pytest.approx(expected["sum"], abs=1e-4 * scale)
    assert tensor.square().sum().item() == pytest.approx(expected["sumsq"], rel=1e-4)
    torch.testing.assert_close(tensor.flatten()[:6], torch.tensor(expected["first"]).double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("case", ["joint", "image", "text"])
def test_mnist_meets_the_reference_values(tmp_path, case):
    older = {"_use_new_zipfile_serialization": case != "joint"}  # the format of torch 0.3
    model = load_model(authors_file(tmp_path / "model_best.pth.tar", **older))
    inputs = {"image": fill.image(4, 1, 28), "text": fill.integers("text", (4,), 10)}
    given = model.modalities if case == "joint" else (case,)
    expected = VALUES["mnist"]["cases"][case]
    with torch.no_grad():
        q = model.posterior(inputs, given)
        p = model.decode(q.mean)
        logits = {name: model.decoder[name](q.mean) for name in model.modalities}
    check(q.mean, expected["mu"])
    check(q.variance.log(), expected["logvar"])
    check(logits["image"], expected["image_logits"])
    check(logits["text"], expected["text_logits"])
    torch.testing.assert_close(
        -p["image"].log_prob(inputs["image"]), torch.tensor(expected["image_nll"]), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(
        -p["text"].log_prob(inputs["text"]), torch.tensor(expected["text_nll"]), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(kl_divergence(q, model.prior()), torch.tensor(expected["kl"]), rtol=1e-4, atol=0)


def linear(w, name, x):
    return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])


def activated(w, name, x):
    """Batch norm, if there is one of this name, and swish."""
    if f"{name}.running_mean" in w:
        x = F.batch_norm(x, *(w[f"{name}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")))
    return x * torch.sigmoid(x)


def mlp(w, prefix, *numbers, x):
    """The linear layers of these numbers."""
    for i in numbers[:-1]:
        x = activated(w, f"{prefix}.{i + 1}", linear(w, f"{prefix}.{i}", x))
    return linear(w, f"{prefix}.{numbers[-1]}", x)


def image_networks(w, classifier, upsample, shape, down, up):
    """The authors' layers, written out on their state dict: x -> (mu, logvar), z -> logits.

    Args:
        down, up: (number, stride, padding) of the convolutions.
    """

    def encoder(x):
        for i, stride, padding in down:
            x = F.conv2d(x, w[f"image_encoder.features.{i}.weight"], stride=stride, padding=padding)
            x = activated(w, f"image_encoder.features.{i + 1}", x)
        return mlp(w, "image_encoder.classifier", *classifier, x=x.flatten(1))

    def decoder(z):
        for name in upsample:
            z = activated(w, "", linear(w, f"image_decoder.{name}", z))
        z = z.view(-1, *shape)
        for i, stride, padding in up:
            z = F.conv_transpose2d(z, w[f"image_decoder.hallucinate.{i}.weight"], stride=stride, padding=padding)
            z = z if i == up[-1][0] else activated(w, f"image_decoder.hallucinate.{i + 1}", z)
        return z

    return encoder, decoder


def embedded(w, prefix, x):
    return mlp(w, prefix, 2, 4, x=activated(w, "", w[f"{prefix}.0.weight"][x]))


def fashionmnist_networks(w):
    convolutions = ((0, 2, 1), (2, 2, 1))
    upsample = ("upsampler.0", "upsampler.2")
    encoder, decoder = image_networks(w, (0, 2), upsample, (128, 7, 7), convolutions, convolutions)
    encoders = {"image": encoder, "text": lambda x: embedded(w, "text_encoder.net", x)}
    return encoders, {"image": decoder, "text": lambda z: mlp(w, "text_decoder.net", 0, 2, 4, 6, x=z)}


def gru_of(w, prefix, *sizes, **options):
    gru = torch.nn.GRU(*sizes, **options).double().eval()
    gru.load_state_dict({key.removeprefix(prefix): x for key, x in w.items() if key.startswith(prefix)})
    return gru


def multimnist_networks(w):
    """One GRU of two directions encodes; a step at a time decodes, fed with the most likely character."""
    gru = gru_of(w, "text_encoder.gru.", 200, 200, bidirectional=True)
    cells = gru_of(w, "text_decoder.gru.", 264, 200, num_layers=2, dropout=0.1)
    down, up = ((0, 2, 1), (2, 2, 1), (5, 2, 1), (8, 2, 0)), ((0, 2, 0), (3, 2, 1), (6, 2, 1), (9, 2, 1))
    encoder, decoder = image_networks(w, (0, 3), ("upsample.0",), (256, 2, 2), down, up)

    def text_encoder(x):
        last = gru(w["text_encoder.embed.weight"][x].transpose(0, 1))[0][-1]
        return linear(w, "text_encoder.h2p", last[:, :200] + last[:, 200:])

    def text_decoder(z):
        character, words = torch.full((len(z),), 10), []
        hidden = linear(w, "text_decoder.z2h", z).repeat(2, 1, 1)
        for _ in range(4):
            letter = activated(w, "", w["text_decoder.embed.weight"][character])
            out, hidden = cells(torch.cat([letter, z], dim=1)[None], hidden)
            words.append(linear(w, "text_decoder.h2o", torch.cat([out[0], z], dim=1)))
            character = words[-1].argmax(dim=1)
        return torch.stack(words, dim=1)

    return {"image": encoder, "text": text_encoder}, {"image": decoder, "text": text_decoder}


def faces_networks(w):
    down, up = ((0, 2, 1), (2, 2, 1), (5, 2, 1), (8, 1, 0)), ((0, 1, 0), (3, 2, 1), (6, 2, 1), (9, 2, 1))
    return image_networks(w, (0, 3), ("upsample.0",), (256, 5, 5), down, up)


def celeba_networks(w):
    """All attributes at once, with batch norm."""
    encoder, decoder = faces_networks(w)
    encoders = {"image": encoder, "attrs": lambda x: mlp(w, "attrs_encoder.net", 0, 3, 6, x=x)}
    return encoders, {"image": decoder, "attrs": lambda z: mlp(w, "attrs_decoder.net", 0, 3, 6, 9, x=z)}


def celeba19_networks(w):
    """One attribute after the other."""
    encoder, decoder = faces_networks(w)
    encoders, decoders = {"image": encoder}, {"image": decoder}
    for i, name in enumerate(ATTRIBUTES):
        encoders[name] = partial(embedded, w, f"attr_encoders.{i}.net")
        decoders[name] = lambda z, i=i: mlp(w, f"attr_decoders.{i}.net", 0, 2, 4, 6, x=z).squeeze(1)
    return encoders, decoders


def product(encoders, inputs, given):
    """Mean and variance of the experts' product with the prior."""
    precision, weighted = 1, 0
    for name in given:
        mu, logvar = encoders[name](inputs[name]).chunk(2, dim=1)
        precision, weighted = precision + (-logvar).exp(), weighted + mu * (-logvar).exp()
    return weighted / precision, 1 / precision


DIGITS = {"image": fill.image(4, 1, 28).double(), "text": fill.integers("text", (4,), 10)}
STRINGS = {"image": fill.image(4, 1, 50).double(), "text": fill.integers("text", (4, 4), 12)}
PHOTOGRAPHS = {"image": fill.image(4, 3, 64).double()}
VECTORS = PHOTOGRAPHS | {"attrs": fill.integers("attrs", (4, 18), 2).double()}
APART = PHOTOGRAPHS | {name: fill.integers(name, (4,), 2) for name in ATTRIBUTES}
AUTHORS = {  # experiment: (networks, latents, examples)
    "fashionmnist": (fashionmnist_networks, 64, DIGITS),
    "multimnist": (multimnist_networks, 64, STRINGS),
    "celeba": (celeba_networks, 100, VECTORS),
    "celeba19": (celeba19_networks, 100, APART),
}


@pytest.mark.parametrize("counts", [True, False], ids=["as now", "before batch norm counted"])
@pytest.mark.parametrize("experiment", AUTHORS)
def test_the_authors_networks_are_met(tmp_path, experiment, counts):
    """Evaluation mode, z = mu, given each kind of modality and some together: values.json has none of these."""
    networks, n_latents, inputs = AUTHORS[experiment]
    path = authors_file(tmp_path / "model_best.pth.tar", experiment, n_latents=n_latents)
    checkpoint = torch.load(path, weights_only=True)
    w = {k: x for k, x in checkpoint["state_dict"].items() if counts or not k.endswith("num_batches_tracked")}
    torch.save(checkpoint | {"state_dict": w}, path)
    encoders, decoders = networks({name: x.double() for name, x in w.items()})
    model, names = load_model(path, experiment).double(), tuple(inputs)
    for given in (names[:1], names[-1:], names[:2], names):
        mu, variance = product(encoders, inputs, given)
        with torch.no_grad():
            q, p = model.posterior(inputs, given), model.decode(mu)
        torch.testing.assert_close(q.mean, mu)
        torch.testing.assert_close(q.variance, variance)
        for name, decoder in decoders.items():
            logits = decoder(mu)
            torch.testing.assert_close(p[name].logits, logits.log_softmax(dim=-1) if name == "text" else logits)


PAIR = {"mnist": fill.image(4, 1, 28), "svhn": fill.image(4, 3, 32)}


def test_mnist_svhn_meets_the_reference_values(mmvae):
    model, expected = load_model(mmvae), VALUES["mnist_svhn"]
    with torch.no_grad():
        experts = model.posterior(PAIR).component_distribution.base_dist
        p = model.decode(fill.wave("z", (1, 4, 20)))
    for m, name in enumerate(model.modalities):
        check(experts.loc[:, m], expected["encoders"][m]["loc"])
        check(experts.scale[:, m], expected["encoders"][m]["scale"])
        check(p[name].mean, expected["decoders"][m]["mean"])
        log_p = torch.tensor(expected["decoders"][m]["log_prob"])[None]
        torch.testing.assert_close(p[name].log_prob(PAIR[name]), log_p, rtol=1e-4, atol=0)
        assert model.weights[name] == pytest.approx(expected["llik_scaling"][m])
    for ours, theirs in ((model.prior().mean, "prior_loc"), (model.prior().base_dist.scale, "prior_scale")):
        torch.testing.assert_close(ours[:6].detach(), torch.tensor(expected[theirs]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("looser", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_mnist_svhns_bounds_meet_the_reference_values(mmvae, looser):
    """Theirs are means over the examples of many draws, ours too."""
    model, expected = load_model(mmvae), VALUES["mnist_svhn"]["estimates"]["m_iwae_looser" if looser else "m_iwae"]
    objective = IwaeElbo(model, K=expected["K"], looser=looser)
    with torch.no_grad():
        values = torch.stack([objective.bound(PAIR).value.mean() for _ in range(100)])
    error = math.hypot(expected["stderr"], values.std().item() / math.sqrt(len(values)))
    assert values.mean().item() == pytest.approx(expected["mean"], abs=4 * error)
    assert error < 3


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "torch 1.3 era"])
def test_options_in_the_authors_pickle_are_read(mmvae, tmp_path, zip_format):
    (tmp_path / "model.rar").write_bytes((mmvae / "model.rar").read_bytes())
    options, pickle = json.loads((mmvae / "args.json").read_text()), tmp_path / "args.rar"
    torch.save(Namespace(**options), pickle, _use_new_zipfile_serialization=zip_format)
    assert load_config(tmp_path) == load_config(mmvae)
    assert load_model(tmp_path).state_dict().keys() == load_model(mmvae).state_dict().keys()
    with pytest.raises(InputError, match="args.rar holds a run's options, not its model: give the folder"):
        load_model(pickle)


REFUSED = [  # what lies beside model.rar, and what is said of it
    ("args.json", None, "args.json .*model.rar needs it, copy it"),
    ("args.json", "{", "args.json .*model.rar needs it, copy it"),
    ("args.json", '{"model": "cubIS"}', "args.json .*model.rar needs it, copy it"),
    ("args.json", {"num_hidden_layers": 2}, "does not fit the networks of mnist_svhn"),
    ("args.json", {"latent_dim": 10}, "does not fit the networks of mnist_svhn"),
    ("args.rar", {"latent_dim": "20"}, "args.rar is damaged, .*latent_dim.*copy it from the authors' run"),
    ("args.rar", {"run": Path("code")}, "args.rar is refused: it holds pathlib.*could run code"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED)
def test_options_that_do_not_fit_an_authors_model_are_refused(mmvae, tmp_path, name, change, message):
    (tmp_path / "model.rar").write_bytes((mmvae / "model.rar").read_bytes())
    if isinstance(change, dict):
        change = json.loads((mmvae / "args.json").read_text()) | change
    if name == "args.rar":
        torch.save(Namespace(**change), tmp_path / name)
    elif change:
        (tmp_path / name).write_text(change if isinstance(change, str) else json.dumps(change))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)
