"""The scripts of celeba and celeba19, on drawn faces and on files of CelebA's layout."""

import itertools
import json
from pathlib import Path

import celeba.analyse
import celeba.classifier
import celeba.loglike
import celeba.sample
import celeba.train
import celeba19.analyse
import celeba19.loglike
import celeba19.model
import celeba19.sample
import celeba19.train
from celeba.attributes import ATTRIBUTES
from celeba.sample import giver
from celeba19.train import AuthorsElbo
from common.checkpoints import load_model
from common.encoders_decoders import has_batch_norm
from common.errors import InputError
from common.multimodal_vae import MultimodalVAE
from common.objectives import MvaeElbo
from reports.metrics import joint_coherence, read_right
from tests.helpers.data_config import data_config
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call
from training.command_line import parse

import pytest
import torch
from PIL import Image


def lines(path):
    return path.read_text().split("\n")[:-1]


@pytest.mark.parametrize("script", [celeba.sample, celeba19.sample])
def test_what_is_given_names_the_picture_and_decides_it(trained, tmp_path, capsys, monkeypatch, script):
    seen, decode = [], MultimodalVAE.decode
    monkeypatch.setattr(
        MultimodalVAE, "decode", lambda model, z, *args, **given: seen.append(z) or decode(model, z, *args, **given)
    )
    args = [trained(script.__name__.split(".")[0]), "--demo", "--limit", 60, "--n-samples", 9, "--out-dir", tmp_path]
    call(script, *args)
    call(script, *args, "--condition-on-attrs", "smiling", "~Bald", "--condition-on-image", "~Male")
    Image.new("RGB", (178, 218), "red").save(tmp_path / "red.png")
    call(script, *args, "--condition-on-image", tmp_path / "red.png")
    names = ["prior", "given_attrs_Smiling_not_Bald_image_not_Male", "given_image_red_png"]
    said = [lines(tmp_path / f"{name}.txt") for name in names]
    assert all(len(x) == 9 and {w for line in x for w in line.split()} <= set(ATTRIBUTES) for x in said)
    assert capsys.readouterr().out.count("| Male | ") == 2, "the attributes predicted from an image"
    seen.clear()
    for attribute in ("Smiling", "~Smiling"):
        call(script, *args, "--condition-on-attrs", attribute)
    assert not seen[0].equal(seen[-1])


def test_samples_of_a_mixture(trained, tmp_path, monkeypatch):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    assert_samples_a_mixture(monkeypatch, celeba19.sample, trained("celeba19"), *options)


def test_condition_on_text_is_the_authors_name_of_condition_on_attrs():
    for script, name in itertools.product((celeba.sample, celeba19.sample), ("attrs", "text")):
        config = parse(script.Config, args=["trained_models", f"--condition-on-{name}", "Male", "~Smiling"])
        assert config.condition_on_attrs == ("Male", "~Smiling")


def test_an_image_with_an_attribute_or_without(trained, tmp_path, monkeypatch):
    run, seen = trained("celeba"), []

    def samples(*args, given, latents):
        seen.append(given.inputs["image"])
        return {"attrs": torch.zeros(1, 18)}

    monkeypatch.setattr("reports.sampling.samples", samples)
    demo = celeba.data.load("test", data_config("", demo=True, limit=60))
    for wanted, value in (("Wearing_Hat", 1), ("~Wearing_Hat", 0)):
        args = ("--demo", "--limit", 60, "--condition-on-image", wanted, "--out-dir", tmp_path)
        call(celeba.sample, run, *args)
        row = (demo[:].modalities["image"] == seen[-1]).flatten(1).all(dim=1)
        assert demo.modalities["attrs"][row][:, ATTRIBUTES.index("Wearing_Hat")].tolist() == [value]


def test_what_is_not_asked_for_is_drawn_from_what_the_model_believes(trained):
    """p(others|asked) against a table of the model's own joint distribution."""
    model = load_model(trained("celeba"))
    with torch.no_grad():
        model.decoder["attrs"][-1].weight *= 100
        has = giver(model)({"Male": 1, "Bald": 0}, 20_000)["attrs"]
        assert has[:, ATTRIBUTES.index("Male")].all() and not has[:, ATTRIBUTES.index("Bald")].any()
        p = model.decode(model.prior().sample((40_000,)), ["attrs"])["attrs"].mean.double()
    asked = p[:, ATTRIBUTES.index("Male")] * (1 - p[:, ATTRIBUTES.index("Bald")])
    expected = (asked[:, None] * p).sum(dim=0) / asked.sum()
    others = [i for i, name in enumerate(ATTRIBUTES) if name not in ("Male", "Bald")]
    torch.testing.assert_close(has.double().mean(dim=0)[others], expected[others], rtol=0, atol=0.02)
    assert ((has.mean(dim=0) - p.mean(dim=0)).abs()[others] > 0.03).any(), "what is asked for says something of others"


def test_attributes_apart_are_given_alone(trained):
    model = load_model(trained("celeba19"))
    inputs = giver(model)({"Male": 1, "Bald": 0}, 3)
    assert {name: x.tolist() for name, x in inputs.items()} == {"Male": [1, 1, 1], "Bald": [0, 0, 0]}


@pytest.mark.parametrize(("folder", "script"), [("celeba", celeba.loglike), ("celeba19", celeba19.loglike)])
def test_loglike_reports_likelihoods_and_attributes(trained, tmp_path, folder, script):
    args = ("--demo", "--limit", 12, "--n-samples", 6, "--json", tmp_path / "out.json")
    estimates = call(script, trained(folder), *args)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["experiment"] == folder and content["estimates"] == estimates
    difference = estimates["log p(image,attrs)"]["mean"] - estimates["log p(attrs)"]["mean"]
    assert estimates["log p(image|attrs)"]["mean"] == pytest.approx(difference)
    examples = celeba.data.load("test", data_config("", demo=True, limit=12))[:].modalities
    model = load_model(trained(folder))
    found = model.reconstruct({"image": examples["image"]})
    names = ATTRIBUTES if folder == "celeba19" else ("attrs",)
    said = torch.stack([found[name] for name in names], dim=1).view(12, 18) > 0.5
    assert content["attributes"] == celeba.loglike.scores(said, examples["attrs"].bool())


def test_f1_and_accuracy_of_known_predictions():
    said, has = torch.zeros(4, 18, dtype=torch.bool), torch.zeros(4, 18, dtype=torch.bool)
    said[:, 0], has[:, 0] = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    said[:3, 1] = has[:3, 1] = True
    found = celeba.loglike.scores(said, has)
    assert found["Bald"] == {"accuracy": 0.5, "of the more frequent value": 0.5, "F1": 0.5}
    assert found["Bangs"] == {"accuracy": 1.0, "of the more frequent value": 0.75, "F1": 1.0}
    assert found["Wearing_Hat"] == {"accuracy": 1.0, "of the more frequent value": 1.0, "F1": None}


def test_shares_are_those_of_a_classifier_that_knows(trained, monkeypatch):
    """Attributes of which all or none are there, latents and a corner that say which, and who looks there."""
    model = load_model(trained("celeba"))

    class Corner(torch.nn.Module):
        def forward(self, z):
            image = torch.full((len(z), 3, 64, 64), -9.0)
            image[:, 0, 0, 0] = torch.where(z[:, 0] > 0, 9.0, -9.0)
            return image

    class Says(torch.nn.Module):
        def forward(self, z):
            return torch.where(z[:, :1] > 0, 9.0, -9.0).expand(-1, 18)

    class Tells(torch.nn.Module):
        def forward(self, attrs):
            mu = (18 * attrs[:, :1] - 9).expand(-1, model.latent_dim)
            return mu, torch.full_like(mu, -20.0)

    class Look(torch.nn.Module):
        def forward(self, x):
            return ((x[:, 0, 0, :1] - 0.5).expand(-1, 18),)

    model.decoder["image"], model.decoder["attrs"], model.encoder["attrs"] = Corner(), Says(), Tells()
    test = celeba.data.load("test", data_config("", demo=True, limit=20))
    labels = test.modalities["attrs"].long()
    monkeypatch.setattr(celeba.analyse, "classifier", lambda *_: Look())
    config = celeba.analyse.Config(Path("unused"))
    judges = celeba.analyse.judges(config, test, labels, model)
    assert joint_coherence(model, 30, judges).all(), "image and attributes of one z always agree here"
    seen = test[:].modalities["image"][:, 0, 0, 0] > 0.5
    expected = seen[:, None] == test.modalities["attrs"].bool()
    assert read_right(judges["image"], test, labels).equal(expected)
    monkeypatch.setattr(
        celeba.analyse, "giver", lambda _: lambda asked, n: {"attrs": torch.full((n, 18), *map(float, asked.values()))}
    )
    columns = celeba.analyse.more_columns(config, model, judges, labels)
    have = labels.double().mean(dim=0)
    torch.testing.assert_close(columns["more frequent value"], torch.maximum(have, 1 - have))
    assert (columns["given alone"] == 1).all()


@pytest.mark.slow
def test_the_classifier_learns_and_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(celeba.classifier, "STEPS", 50)
    monkeypatch.setattr(celeba.classifier, "BATCH_SIZE", 40)
    image = torch.randint(256, (200, 3, 64, 64), dtype=torch.uint8)
    attrs = torch.randint(2, (200, 18)).float()
    image[:, 0] = (200 * attrs[:, 4]).view(-1, 1, 1).to(torch.uint8)
    examples = celeba.data.Examples({"image": image})
    path = tmp_path / "classifier.pt"
    network = celeba.classifier.classifier(examples, attrs, path)
    predicted = celeba.classifier.predict(network, examples[:].modalities["image"])[:, 4]
    assert (predicted == attrs[:, 4].bool()).double().mean() > 0.95
    monkeypatch.setattr(celeba.classifier, "fit", None)
    x, darker = torch.rand(2, 3, 64, 64), celeba.data.Examples({"image": image // 2})
    assert celeba.classifier.classifier(examples, attrs, path)(x)[0].equal(network(x)[0])
    for x, y, message in ((examples, 1 - attrs, r"\(other attributes\)"), (darker, attrs, r"\(other images\)")):
        with pytest.raises(InputError, match=message):
            celeba.classifier.classifier(x, y, path)


@pytest.mark.slow
def test_training_on_photographs(photographs, tmp_path):
    """The last of six is alone in its batch, which gives batch norm no statistics."""
    args = ("--epochs", 1, "--n-latents", 4, "--batch-size", 5, "--valid", 0, "--annealing-epochs", 1)
    call(celeba.train, "--data-dir", photographs, "--cache-dir", photographs, *args, "--save-dir", tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["train"]["joint/image"] < 0


def test_one_row_goes_by_the_statistics_so_far(trained):
    model = load_model(trained("celeba")).train()
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    before = [m.running_mean.clone() for m in norms]
    batch = celeba.data.load("test", data_config("", demo=True, limit=3))
    bound = MvaeElbo(model).bound(batch[:1])
    assert bound.value.isfinite().all() and all(m.training for m in norms)
    assert all(m.running_mean.equal(b) for m, b in zip(norms, before, strict=True))
    MvaeElbo(model).bound(batch[:])
    assert not any(m.running_mean.equal(b) for m, b in zip(norms, before, strict=True))
    assert has_batch_norm(model)


def test_the_authors_weights_reach_two_terms_only(trained):
    model = load_model(trained("celeba19")).eval()
    batch = celeba19.data.apart(celeba.data.load("test", data_config("", demo=True, limit=6)))[:]
    weights = {"image": 0.5} | dict.fromkeys(ATTRIBUTES, 10.0)
    torch.manual_seed(0)
    value, terms = AuthorsElbo(model, 2, weights).bound(batch)
    expected = 0
    for term, x in terms.items():
        subset, name = term.split("/")
        weight = weights[name] if name != "kl" and subset in ("joint", "image") else 1
        expected = expected + (-x if name == "kl" else weight * x)
    torch.testing.assert_close(value, expected)
    ours = MvaeElbo(model, weights=weights)
    assert ours.weight("Bald", "Bald") == ours.weight("Bald", "subset1") == ours.weight("Bald", "joint") == 10


def test_samples_of_a_cluster(tmp_path, monkeypatch):
    built = celeba.model.build(celeba.train.Config(model="cmvae", n_latents=4)).eval()
    built.prior.loc.data = torch.full_like(built.prior.loc, 9)
    drawn, decode = [], built.decode
    monkeypatch.setattr(built, "decode", lambda z, *args, **given: drawn.append(z) or decode(z, *args, **given))
    monkeypatch.setattr("reports.options.load_model", lambda *_: built)
    call(celeba.sample, tmp_path, "--cluster", 3, "--n-samples", 2, "--out-dir", tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cluster_3.png", "cluster_3.txt"}
    assert (drawn[0][:, :4] > 0).all(), "the first latents, which are shared, lie around the cluster"


@pytest.mark.parametrize("model", ["dmvae", "mmvae+", "cmvae"])
def test_the_image_alone_has_private_latents(model):
    """They come from the prior where the image is not given, and the decoder of attributes does not see them."""
    config = celeba.train.Config(model=model, n_latents=4)
    assert config.n_private == 32 and config.posterior == ("gaussian" if model == "dmvae" else "laplace")
    config.check()
    built = celeba.model.build(config).eval()
    assert built.n_shared == 4 and len(built.prior().mean) == 36
    assert [(x.name, len(x.private_latents)) for x in built.private] == [("image", 32)]
    z = built.posterior({"attrs": torch.zeros(500, 18)}).sample()
    torch.testing.assert_close(z[:, 4:].std(), built.prior().stddev[4:].mean(), rtol=0.05, atol=0)
    changed = torch.cat([z[:, :4], z[:, 4:] + 1], dim=1)
    attrs, image = ([built.decode(x, [name])[name].mean for x in (z, changed)] for name in ("attrs", "image"))
    assert attrs[0].equal(attrs[1]) and not image[0].equal(image[1])
    private = built.posterior({"image": torch.rand(2, 3, 64, 64)}).mean[:, 4:]
    assert (private[0] != private[1]).all(), "its encoder gives them"


def test_gradients_do_not_depend_on_the_order_of_threads():
    """Additions of several threads came in any order."""
    encoder = celeba19.model.AttributeEncoders((8, 8))
    x, weights = torch.randint(2, (100, 18)), torch.randn(100, 18, 8)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    gradients = []
    for _ in range(8):
        encoder.zero_grad()
        (encoder(x)[0] * weights).sum().backward()
        gradients.append(encoder.heads.weight.grad.clone())
    torch.set_num_threads(threads)
    assert all(gradient.equal(gradients[0]) for gradient in gradients)


def test_pictures_of_the_analysis_name_the_attributes_of_faces():
    attrs = torch.zeros(2, 18)
    attrs[0, [ATTRIBUTES.index("Male"), ATTRIBUTES.index("Smiling")]] = 1
    assert celeba.analyse.captions({"attrs": attrs}) == ["Male, Smiling", "(none)"]
    apart = {name: attrs[:, i].long() for i, name in enumerate(ATTRIBUTES)}
    assert celeba.analyse.captions(apart | {"image": torch.zeros(2)}) == ["Male, Smiling", "(none)"]
    assert celeba.analyse.captions({"image": torch.zeros(2)}) == []
