"""The networks of CUB's birds: the authors' own reproduced, tied embeddings, captions' likelihood, mixed families."""

from copy import deepcopy

from common.checkpoints import load_config, load_model
from cub import train
from cub.caption_likelihood import Captions
from cub.captions import END, PADDING
from cub.model import build
from tests.helpers.authors import ARGS, WORDS, authors_folder
from tests.reference import fill
from training.options import as_json

import pytest
import torch
from torch import nn
from torch.distributions import Independent, Laplace, Normal
from torch.nn import functional as F


def networks(w, name):
    """The authors' layers, written out on their state dict, in float64: x -> (loc, scale), z -> what a modality has."""

    def bias(layer):
        return w.get(f"{layer}.bias")

    def conv(layer, x, stride, padding):
        return F.conv2d(x, w[f"{layer}.weight"], bias(layer), stride, padding)

    def conv_transpose(layer, x, stride, padding):
        return F.conv_transpose2d(x, w[f"{layer}.weight"], bias(layer), stride, padding)

    def norm(layer, x):
        return F.batch_norm(x, *(w[f"{layer}.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")))

    def linear(layer, x):
        return F.linear(x, w[f"{layer}.weight"], w[f"{layer}.bias"])

    def heads(prefix, x, loc, scale, head):
        return tuple(
            change(head(f"{prefix}.{layer}", x).flatten(1))
            for layer, change in ((loc, lambda x: x), (scale, lambda x: F.softplus(x) + 1e-6))
        )

    def image_encoder(x):
        for i in (0, 2, 4, 6):
            x = conv(f"vaes.0.enc.enc.{i}", x, 2, 1).relu()
        return heads("vaes.0.enc", x, "c1", "c2", lambda layer, x: conv(layer, x, 1, 0))

    def image_decoder(z):
        x = conv_transpose("vaes.0.dec.dec.0", z[..., None, None], 1, 0).relu()
        for i in (2, 4, 6):
            x = conv_transpose(f"vaes.0.dec.dec.{i}", x, 2, 1).relu()
        return conv_transpose("vaes.0.dec.dec.8", x, 2, 1).sigmoid()

    def feature_encoder(x):
        for i in range(3):
            x = F.elu(linear(f"vaes.0.enc.enc.layer{i}.0", x))
        return heads("vaes.0.enc", x, "fc21", "fc22", linear)

    def feature_decoder(z):
        for layer in ("out_t", "layer1_t", "layer2_t"):
            z = F.elu(linear(f"vaes.0.dec.dec.{layer}.0", z))
        return linear("vaes.0.dec.fc31", z)

    wide = ((1, 2), (0, 1))

    def caption_encoder(x):
        x = w["vaes.1.enc.embedding.weight"][x][:, None]
        for i, shape in ((0, (2, 1)), (3, (2, 1)), (6, (2, 1)), (9, wide), (12, wide)):
            x = norm(f"vaes.1.enc.enc.{i + 1}", conv(f"vaes.1.enc.enc.{i}", x, *shape)).relu()
        return heads("vaes.1.enc", x, "c1", "c2", lambda layer, x: conv(layer, x, 1, 0))

    def caption_decoder(z):
        x = z[..., None, None]
        for i, shape in ((0, (1, 0)), (3, wide), (6, wide), (9, (2, 1)), (12, (2, 1))):
            x = norm(f"vaes.1.dec.dec.{i + 1}", conv_transpose(f"vaes.1.dec.dec.{i}", x, *shape)).relu()
        return linear("vaes.1.dec.toVocabSize", conv_transpose("vaes.1.dec.dec.15", x, 2, 1).relu()[:, 0])

    first = (image_encoder, image_decoder) if name == "cubIS" else (feature_encoder, feature_decoder)
    return (first[0], caption_encoder), (first[1], caption_decoder)


@pytest.mark.parametrize("name", ["cubIS", "cubISft"])
def test_the_authors_run_folders_give_identical_outputs(tmp_path, name):
    w = authors_folder(tmp_path, name)
    encoders, decoders = networks(w, name)
    model = load_model(tmp_path, "cub").double()
    source, d = model.modalities[0], ARGS[name]["latent_dim"]
    x = {
        source: (fill.image(3, 3, 64) if source == "image" else fill.wave("feature", (3, 2048))).double(),
        "caption": fill.integers("caption", (3, 32), 1590),
    }
    with torch.no_grad():
        experts = model.posterior(x).component_distribution.base_dist
        z = fill.wave("z", (3, d)).double()
        p, prior = model.decode(z), model.prior()
        families = {"cubIS": (Laplace, Normal), "cubISft": (Normal, Normal)}[name]
        for m, (modality, family) in enumerate(zip(model.modalities, families, strict=True)):
            loc, scale = encoders[m](x[modality])
            torch.testing.assert_close(experts.loc[:, m], loc)
            torch.testing.assert_close(experts.scale[:, m], scale)
            alone = model.posterior({modality: x[modality]})
            torch.testing.assert_close(alone.log_prob(z), Independent(family(loc, scale), 1).log_prob(z))
        torch.testing.assert_close(p[source].mean, decoders[0](z))
        expected = Independent(Laplace(decoders[0](z), 0.01), x[source].dim() - 1).log_prob(x[source])
        torch.testing.assert_close(p[source].log_prob(x[source]), expected)
        torch.testing.assert_close(p["caption"].words(p["caption"].embedded), decoders[1](z))
        v = w["_pz_params.1"][0]
        if name == "cubIS":
            expected = Laplace(w["_pz_params.0"][0], v.softmax(dim=0) * d + 1e-6)
        else:
            expected = Normal(w["_pz_params.0"][0], F.softplus(v) + 1e-6)
        torch.testing.assert_close(prior.log_prob(z), Independent(expected, 1).log_prob(z))
    assert model.weights == {source: pytest.approx(32 / 12288 if name == "cubIS" else 0.002), "caption": 1.0}
    assert load_config(tmp_path)["vocabulary"] is None


def small(model="features", **changes):
    config = train.Config(model=model, n_latents=5, demo=True, **changes)
    config.vocabulary = WORDS
    return config


def batch(model, n=3):
    words = torch.randint(3, len(WORDS), (n, 32))
    words[:, 10], words[:, 11:] = END, PADDING
    x = {"image": torch.rand(n, 3, 64, 64), "feature": torch.rand(n, 2048), "caption": words}
    return {name: x[name] for name in model.modalities}


@pytest.mark.parametrize("block", [8, 2048])
def test_padding_contributes_exactly_zero(monkeypatch, block):
    monkeypatch.setattr("cub.caption_likelihood.BLOCK", block)  # 8: fewer rows than all, and some of padding among them
    layer = nn.Linear(5, 12).double()
    embedded = torch.randn(4, 2, 32, 5, dtype=torch.float64, requires_grad=True)
    words = torch.randint(3, 12, (2, 32))
    words[0, 7], words[0, 8:] = END, PADDING
    log_p = Captions(embedded, layer).log_prob(words)
    of_words = layer(embedded).log_softmax(dim=-1)
    torch.testing.assert_close(Captions(embedded, layer).logits.log_softmax(dim=-1), of_words)
    expected = torch.zeros(4, 2, dtype=torch.float64)
    for b, n in ((0, 8), (1, 32)):
        for t in range(n):
            expected[:, b] += of_words[:, b, t, words[b, t]]
    torch.testing.assert_close(log_p, expected)
    weight, inputs = torch.randn(4, 2, dtype=torch.float64), (embedded, *layer.parameters())
    found = torch.autograd.grad((weight * log_p).sum(), inputs)
    torch.testing.assert_close(found, torch.autograd.grad((weight * expected).sum(), inputs))
    assert (found[0][:, 0, 8:] == 0).all()
    assert (found[0][:, 0, :8] != 0).any(dim=-1).all()
    of_first = Captions(embedded[0], layer).log_prob(words.expand(3, 2, 32))
    torch.testing.assert_close(of_first, expected[0].expand(3, 2))
    all_padding = torch.full((2, 32), PADDING)
    assert Captions(embedded, layer).log_prob(all_padding).eq(0).all()


def test_a_likeliest_caption_is_padded_after_its_end():
    logits = torch.zeros(1, 32, 12)
    said = torch.tensor([5, 6, END, 7, END, *27 * [8]])
    logits[0, torch.arange(32), said] = 1
    assert Captions(logits, nn.Identity()).mode.tolist() == [[5, 6, END, *29 * [PADDING]]]
    assert Captions(logits.flip(-1), nn.Identity()).mode[0].eq(said.new_tensor([11 - i for i in said])).all()
    drawn = Captions(1000 * logits, nn.Identity()).sample((2,))  # the likeliest words, almost surely
    assert drawn.tolist() == 2 * [[[5, 6, END, *29 * [PADDING]]]]


def test_the_authors_settings_are_the_defaults():
    for name, d, epochs, llik in (("images", 128, 200, 0.0), ("features", 64, 50, 0.002)):
        config = train.Config(model=name)
        assert (config.n_latents, config.epochs, config.llik_scaling) == (d, epochs, llik)
        assert (config.obj, config.K, config.batch_size, config.lr) == ("dreg", 50, 64, 1e-3)
        assert config.learn_prior


def test_tied_weights_stay_tied(tmp_path):
    model = build(small("features"))

    def embedding(model):
        return model.encoder["caption"][0].weight, model.decoder["caption"][-1].weight

    assert embedding(model)[0] is embedding(model)[1]
    assert sum(p is embedding(model)[0] for p in model.parameters()) == 1
    copied = deepcopy(model)
    assert embedding(copied)[0] is embedding(copied)[1] is not embedding(model)[0]
    assert copied.likelihood["caption"].words.__self__ is copied.decoder["caption"][-1]
    checkpoint = {"experiment": "cub", "config": as_json(small("features")), "state_dict": model.state_dict()}
    torch.save(checkpoint, tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert embedding(loaded)[0] is embedding(loaded)[1] and embedding(loaded)[0].equal(embedding(model)[0])
