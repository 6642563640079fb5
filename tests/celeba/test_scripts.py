"""The scripts of celeba and celeba19, on drawn faces and on files of CelebA's layout."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

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
from celeba.data import drawn
from celeba.sample import giver
from celeba19.train import AuthorsElbo
from common.checkpoints import load_config, load_model
from common.encoders_decoders import has_batch_norm
from common.errors import InputError
from common.objectives import MvaeElbo
from reports.metrics import joint_coherence, read_right
from tests.helpers.data_config import data_config
from tests.helpers.demo_runs import TINY
from tests.helpers.mixtures import assert_samples_a_mixture
from tests.helpers.scripts import call, run_script
from training.command_line import parse

ABSENT = next(name for name, has in zip(ATTRIBUTES, drawn("test", 1)["attrs"][0].tolist(), strict=True) if not has)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model of each folder; celeba19's with random subsets."""
    folders = {folder: tmp_path_factory.mktemp(folder) for folder in ("celeba", "celeba19")}
    call(celeba.train, "--demo", *TINY, "--save-dir", folders["celeba"])
    call(celeba19.train, "--demo", *TINY, "--approx-m", 1, "--save-dir", folders["celeba19"])
    return folders


def lines(path):
    return path.read_text().split("\n")[:-1]


@pytest.mark.parametrize("folder", ["celeba", "celeba19"])
def test_training_leaves_pictures_and_terms(trained, folder):
    pictures = {path.name for path in (trained[folder] / "samples").iterdir()}
    assert {"prior.png", "reconstructions.png", "conditional.png"} <= pictures
    (line,) = [json.loads(line) for line in (trained[folder] / "metrics.jsonl").read_text().splitlines()]
    names = ("attrs",) if folder == "celeba" else ATTRIBUTES
    scored = {f"{subset}/{name}" for name in names for subset in (name, "joint")}
    assert scored | {"joint/image", "image/image", "joint/kl"} <= set(line["train"])
    assert ("subset1/kl" in line["train"]) == (folder == "celeba19")


@pytest.mark.parametrize("folder", ["celeba", "celeba19"])
@pytest.mark.parametrize(
    ("attrs", "image"), [((), None), (("Male",), None), (("smiling", "~Bald"), "~Male"), ((), "file")]
)
def test_sampling_given_anything(trained, tmp_path, capsys, folder, attrs, image):
    script = {"celeba": celeba.sample, "celeba19": celeba19.sample}[folder]
    args = [trained[folder], "--demo", "--limit", 60, "--n-samples", 9, "--out-dir", tmp_path]
    args += ["--condition-on-attrs", *attrs] if attrs else []
    if image == "file":
        Image.new("RGB", (178, 218), "red").save(tmp_path / "given.png")
        image = tmp_path / "given.png"
    args += ["--condition-on-image", image] if image else []
    call(script, *args)
    names = ["attrs_Male"] * (attrs == ("Male",)) + ["attrs_Smiling_not_Bald"] * (len(attrs) == 2)
    names += [f"image_{'given_png' if image != '~Male' else 'not_Male'}"] * (image is not None)
    path = tmp_path / ("_".join(["given", *names]) + ".png" if names else "prior.png")
    said = lines(path.with_suffix(".txt"))
    assert len(said) == 9 and {w for line in said for w in line.split()} <= set(ATTRIBUTES)
    with Image.open(path) as picture:
        assert picture.width > 300
    out = capsys.readouterr().out
    assert all((f"| {name} | " in out) == bool(image) for name in ATTRIBUTES), "the attributes predicted from the image"


@pytest.mark.parametrize("script", [celeba.sample, celeba19.sample])
def test_samples_of_a_mixture(trained, tmp_path, monkeypatch, script):
    options = ("--demo", "--limit", 20, "--out-dir", tmp_path)
    folder = trained[script.__name__.split(".")[0]]
    assert_samples_a_mixture(monkeypatch, script, folder, *options)


def test_condition_on_text_is_the_authors_name_of_condition_on_attrs():
    for script, name in itertools.product((celeba.sample, celeba19.sample), ("attrs", "text")):
        config = parse(script.Config, args=["trained_models", f"--condition-on-{name}", "Male", "~Smiling"])
        assert config.condition_on_attrs == ("Male", "~Smiling")


@pytest.mark.slow
def test_reconstructions_and_an_image_with_an_attribute(trained, tmp_path, monkeypatch):
    call(celeba.sample, trained["celeba"], "--demo", "--reconstruct", "--n-samples", 5, "--out-dir", tmp_path)
    assert len(lines(tmp_path / "reconstructions.txt")) == 5
    seen = []

    def samples(*args, given, latents):
        seen.append(given.inputs["image"])
        return {"attrs": torch.zeros(1, 18)}

    monkeypatch.setattr("reports.sampling.samples", samples)
    demo = celeba.data.load("test", data_config("", demo=True, limit=60))
    for wanted, value in (("Wearing_Hat", 1), ("~Wearing_Hat", 0)):
        args = ("--demo", "--limit", 60, "--condition-on-image", wanted, "--out-dir", tmp_path)
        call(celeba.sample, trained["celeba"], *args)
        row = (demo[:].modalities["image"] == seen[-1]).flatten(1).all(dim=1)
        assert demo.modalities["attrs"][row][:, ATTRIBUTES.index("Wearing_Hat")].tolist() == [value]


def test_what_is_not_asked_for_is_drawn_from_what_the_model_believes(trained):
    """p(others|asked) against a table of the model's own joint distribution."""
    model = load_model(trained["celeba"])
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
    model = load_model(trained["celeba19"])
    inputs = giver(model)({"Male": 1, "Bald": 0}, 3)
    assert {name: x.tolist() for name, x in inputs.items()} == {"Male": [1, 1, 1], "Bald": [0, 0, 0]}


@pytest.mark.parametrize(("folder", "script"), [("celeba", celeba.loglike), ("celeba19", celeba19.loglike)])
def test_loglike_reports_likelihoods_and_attributes(trained, tmp_path, capsys, folder, script):
    args = ("--demo", "--limit", 12, "--n-samples", 6, "--json", tmp_path / "out.json")
    estimates = call(script, trained[folder], *args)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["experiment"] == folder and content["estimates"] == estimates
    difference = estimates["log p(image,attrs)"]["mean"] - estimates["log p(attrs)"]["mean"]
    assert estimates["log p(image|attrs)"]["mean"] == pytest.approx(difference)
    examples = celeba.data.load("test", data_config("", demo=True, limit=12))[:].modalities
    model = load_model(trained[folder])
    found = model.reconstruct({"image": examples["image"]})
    names = ATTRIBUTES if folder == "celeba19" else ("attrs",)
    said = torch.stack([found[name] for name in names], dim=1).view(12, 18) > 0.5
    has = examples["attrs"].bool()
    for i, name in enumerate(ATTRIBUTES):
        row = content["attributes"][name]
        assert row["accuracy"] == pytest.approx((said[:, i] == has[:, i]).double().mean().item())
        both, either = (said & has)[:, i].sum().item(), said[:, i].sum().item() + has[:, i].sum().item()
        assert row["F1"] == (None if either == 0 else pytest.approx(2 * both / either))
    assert "| mean | " in capsys.readouterr().out


def test_f1_and_accuracy_of_known_predictions():
    said, has = torch.zeros(4, 18, dtype=torch.bool), torch.zeros(4, 18, dtype=torch.bool)
    said[:, 0], has[:, 0] = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([1, 0, 1, 0]).bool()
    said[:3, 1] = has[:3, 1] = True
    found = celeba.loglike.scores(said, has)
    assert found["Bald"] == {"accuracy": 0.5, "of the more frequent value": 0.5, "F1": 0.5}
    assert found["Bangs"] == {"accuracy": 1.0, "of the more frequent value": 0.75, "F1": 1.0}
    assert found["Wearing_Hat"] == {"accuracy": 1.0, "of the more frequent value": 1.0, "F1": None}


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["celeba", "celeba19"])
def test_the_analysis_tells_what_generated_faces_show(trained, tmp_path, monkeypatch, folder):
    monkeypatch.setattr(celeba.classifier, "STEPS", 2)
    script = {"celeba": celeba.analyse, "celeba19": celeba19.analyse}[folder]
    args = ("--demo", "--limit", 30, "--json", tmp_path / "out.json", "--out-dir", tmp_path, "--data-dir", tmp_path)
    found = call(script, trained[folder], *args, "--n-samples", 40)
    content = json.loads((tmp_path / "out.json").read_text())
    assert {name: x["mean"] for name, x in content["estimates"].items()} == found
    pairs = [f"{a} -> {b}" for a in ("image", "attrs") for b in ("image", "attrs")]
    of_each = ["classifier, image", "latent accuracy, image", "latent accuracy, attrs"]
    kls = {"KL(q(z|image) || p(z))", "KL(q(z|attrs) || p(z))", "J(q(z|image), q(z|attrs))"}
    assert set(found) == {*of_each, *(f"coherence, {pair}" for pair in [*pairs, "joint"]), *kls}
    shares = content["attributes"]
    assert set(shares) == set(ATTRIBUTES)
    assert all(0 <= share <= 1 for row in shares.values() for share in row.values())
    others = ("reconstructed", "given all", "given alone", "joint")
    assert set(shares["Bald"]) == {"test images", "more frequent value", *others}
    mean = sum(row["given all"] for row in shares.values()) / len(shares)
    assert found["coherence, attrs -> image"] == pytest.approx(mean)
    pictures = ["cross_generation.png", "kl.png", "traversal_image.png", "umap.png"]
    assert sorted(path.name for path in tmp_path.glob("*.png")) == pictures


def test_shares_are_those_of_a_classifier_that_knows(trained, monkeypatch):
    """A decoder whose image says an attribute in a corner, and a classifier that looks there."""
    model = load_model(trained["celeba"])

    class Corner(torch.nn.Module):
        def forward(self, z):
            image = torch.full((len(z), 3, 64, 64), -9.0)
            image[:, 0, 0, 0] = torch.where(z[:, 0] > 0, 9.0, -9.0)
            return image

    class Says(torch.nn.Module):
        def forward(self, z):
            return torch.where(z[:, :1] > 0, 9.0, -9.0).expand(-1, 18)

    class Look(torch.nn.Module):
        def forward(self, x):
            return ((x[:, 0, 0, :1] - 0.5).expand(-1, 18),)

    model.decoder["image"], model.decoder["attrs"] = Corner(), Says()
    test = celeba.data.load("test", data_config("", demo=True, limit=20))
    labels = test.modalities["attrs"].long()
    monkeypatch.setattr(celeba.analyse, "classifier", lambda *_: Look())
    config = celeba.analyse.Config(Path("unused"))
    judges = celeba.analyse.judges(config, test, labels, model)
    assert joint_coherence(model, 30, judges).all(), "image and attributes of one z always agree here"
    seen = test[:].modalities["image"][:, 0, 0, 0] > 0.5
    expected = seen[:, None] == test.modalities["attrs"].bool()
    assert read_right(judges["image"], test, labels).equal(expected)
    columns = celeba.analyse.more_columns(config, model, judges, labels)
    have = labels.double().mean(dim=0)
    torch.testing.assert_close(columns["more frequent value"], torch.maximum(have, 1 - have))
    assert ((columns["given alone"] >= 0) & (columns["given alone"] <= 1)).all()


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
    with monkeypatch.context() as untrained:
        untrained.setattr(celeba.classifier, "fit", None)
        again = celeba.classifier.classifier(examples, attrs, path)
    x = torch.rand(2, 3, 64, 64)
    assert again(x)[0].equal(network(x)[0])
    monkeypatch.setattr(celeba.classifier, "STEPS", 1)
    content, darker = path.read_bytes(), celeba.data.Examples({"image": image // 2})
    with pytest.raises(InputError, match=r"classifier.pt is a classifier trained with other data .* \(other steps\)"):
        celeba.classifier.classifier(examples, attrs, path)
    monkeypatch.setattr(celeba.classifier, "STEPS", 50)
    with pytest.raises(InputError, match=r"\(other attributes\)"):
        celeba.classifier.classifier(examples, 1 - attrs, path)
    with pytest.raises(InputError, match=r"\(other images\)"):
        celeba.classifier.classifier(darker, attrs, path)
    assert path.read_bytes() == content


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (celeba.train, ("--batch-size", 5, "--valid", 0)),
        (celeba19.train, ("--paired-fraction", 0.5)),
    ],
)
def test_training_on_photographs(photographs, tmp_path, script, options):
    """There are six, in some cases with one alone in the last batch, which gives batch norm no statistics."""
    args = ("--epochs", 1, "--n-latents", 4, "--batch-size", 3, "--annealing-epochs", 1)
    call(script, "--data-dir", photographs, "--cache-dir", photographs, *args, *options, "--save-dir", tmp_path)
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["train"]["joint/image"] < 0


def test_one_row_goes_by_the_statistics_so_far(trained):
    model = load_model(trained["celeba"]).train()
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
    model = load_model(trained["celeba19"]).eval()
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "options"),
    [
        (celeba.train, ("--model", "bivcca", "--posterior", "laplace", "--obj", "iwae", "--K", 2)),
        (celeba.train, ("--model", "jmvae")),
        (celeba.train, ("--model", "vae")),
        (celeba.train, ("--model", "cvae")),
        (celeba19.train, ("--weighting", "authors", "--approx-m", 2)),
        (celeba.train, ("--posterior", "vmf")),
    ],
)
def test_fusions_families_and_objectives_by_name(tmp_path, script, options):
    call(script, "--demo", *TINY, "--limit", 10, "--batch-size", 5, "--valid", 0, *options, "--save-dir", tmp_path)
    trained = load_config(tmp_path)
    for name, value in zip(options[::2], options[1::2], strict=True):
        assert trained[name[2:].replace("-", "_")] == value
    load_model(tmp_path)


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


@pytest.mark.parametrize(
    ("folder", "script", "args", "message"),
    [
        (
            "celeba",
            celeba.sample,
            ["--condition-on-attrs", "Smilling"],
            "--condition-on-attrs: 'Smilling' is not an attribute",
        ),
        ("celeba", celeba.sample, ["--condition-on-attrs", "Male", "~Male"], "asked for and excluded at once"),
        (
            "celeba",
            celeba.sample,
            ["--condition-on-image", "no.jpg"],
            "there is no such file, and 'no.jpg' is not an attribute",
        ),
        ("celeba", celeba.sample, ["--condition-on-image", ABSENT, "--limit", "1"], "none of the 1 test images is"),
        ("celeba", celeba.sample, ["--reconstruct", "--condition-on-attrs", "Male"], "--reconstruct takes no cond"),
        ("celeba", celeba.loglike, ["--n-samples", "0"], "--n-samples must be positive"),
        ("celeba", celeba.analyse, ["--n-samples", "0"], "--n-samples must be positive"),
        ("celeba", celeba19.sample, [], "is a checkpoint of celeba, not of celeba19"),
    ],
)
def test_impossible_requests_take_one_line_and_exit_2(trained, capsys, folder, script, args, message):
    with pytest.raises(SystemExit) as exit_:
        run_script(script, [str(trained[folder]), "--demo", *args])
    assert exit_.value.code == 2
    err = capsys.readouterr().err
    assert message in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("script", "options", "message"),
    [
        (celeba.train, ["--posterior", "laplace"], "there is no fusion poe for laplace experts"),
        (celeba.train, ["--n-private", 3], "--n-private needs a model with private latents, not --model mvae"),
        (celeba.train, ["--model", "dmvae", "--n-private", 0], "--n-private of --model dmvae must be positive, not 0"),
        (
            celeba19.train,
            ["--weighting", "authors", "--obj", "elbo"],
            "--weighting authors needs --obj mvae",
        ),
        (celeba.train, ["--data-dir", "nowhere"], "nowhere/img_align_celeba is missing"),
    ],
)
def test_what_cannot_be_trained_is_refused(tmp_path, script, options, message):
    demo = [] if "--data-dir" in options else ["--demo"]
    with pytest.raises(InputError, match=message):
        call(script, *demo, *TINY, *options, "--save-dir", tmp_path)


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
