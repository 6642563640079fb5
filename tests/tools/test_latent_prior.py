"""Fitting a density to the latents of a run, its file, and the scripts that draw from it."""

import shutil
from importlib import import_module

from common import fitted_priors
from common.checkpoints import BEST, load_model
from common.data import Examples
from common.errors import InputError
from common.execution.random_states import fixed_noise
from common.multimodal_vae import MultimodalVAE
from polymnist import analyse, sample
from polymnist import train as polymnist_train
from tests.helpers.scripts import call
from tools import latent_prior
from tools.exploration.explorer import Explorer
from tools.exploration.views import VIEWS
from training.options import default_of

import pytest
import torch

FEW = ("--demo", "--limit", 40, "--epochs", 1)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A run of polymnist beside its two densities, whose modalities share z."""
    folder = tmp_path_factory.mktemp("shared") / "run"
    shutil.copytree(trained("polymnist"), folder)
    for kind in ("maf", "score"):
        call(latent_prior, folder, "--kind", kind, *FEW)
    return folder


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A run of mmvm beside its two densities, whose modalities have latents of their own."""
    folder = tmp_path_factory.mktemp("own") / "run"
    options = ("--demo", "--model", "mmvm", "--n-modalities", 3, "--networks", "small", "--n-latents", 4)
    call(polymnist_train, *options, "--epochs", 1, "--limit", 40, "--batch-size", 20, "--save-dir", folder)
    for kind in ("maf", "score"):
        call(latent_prior, folder, "--kind", kind, *FEW)
    return folder


@pytest.mark.parametrize("kind", ["maf", "score"])
def test_a_density_is_read_as_it_was_written(run, tmp_path, capsys, kind):
    folder = shutil.copytree(run, tmp_path / "run")
    path = folder / f"latent_prior_{kind}.pt"
    path.unlink()
    losses = call(latent_prior, folder, "--kind", kind, *FEW)
    assert capsys.readouterr().out == f"epoch 1/1  held-out loss {losses[0]:.4f} *\n{path}\n"
    first, again = (fitted_priors.load(x, kind, load_model(x)) for x in (run, folder / BEST))
    drawn = []
    for prior in (first, again):
        with fixed_noise(3, torch.device("cpu")):
            drawn.append(prior.sample((4,)))
    assert drawn[0].equal(drawn[1]) and drawn[0].shape == (4, 32)
    call(latent_prior, folder, "--kind", kind, *FEW, "--seed", 1)
    with fixed_noise(3, torch.device("cpu")):
        assert not fitted_priors.load(folder, kind, load_model(folder)).sample((4,)).equal(drawn[0])


def test_files_that_do_not_fit_are_refused_in_one_line(run, own, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    path, model = folder / "latent_prior_maf.pt", load_model(folder)
    content = path.read_bytes()
    remedy = f"in the root, python -m tools.latent_prior {folder} --kind maf makes it"

    def refusal():
        with pytest.raises(InputError) as refused:
            fitted_priors.load(folder, "maf", model)
        return str(refused.value).replace(str(path), "FILE").replace(remedy, "REMEDY")

    saved = torch.load(path, weights_only=True)
    for odd, message in (
        (content[:2000], "is damaged or not a checkpoint"),
        ({**saved, "event_shape": "x"}, "is damaged, Expected `array`, got `str` - at `$.event_shape`"),
        ({**saved, "state_dict": {}}, "is damaged: it lacks flow.base.loc, flow.base.scale"),
        ({**saved, "model": saved["model"] ^ 1}, "was fitted to another model, or before more training: REMEDY"),
        (torch.load(own / path.name, weights_only=True), "is of latents (3, 4), the model has (32,): REMEDY"),
    ):
        path.write_bytes(odd) if isinstance(odd, bytes) else torch.save(odd, path)
        assert refusal().startswith("FILE") and message in refusal() and refusal().endswith("REMEDY")
    path.unlink()
    assert refusal() == "FILE is missing: REMEDY"


def test_a_model_that_is_trained_on_needs_another_fit(run):
    model = load_model(run)
    next(model.decoder.parameters()).data += 1e-4
    with pytest.raises(InputError, match="was fitted to another model, or before more training"):
        fitted_priors.load(run, "maf", model)


def decoded_by(monkeypatch, *args):
    """What polymnist's sample.py decodes."""
    seen, decode = [], MultimodalVAE.decode
    monkeypatch.setattr(MultimodalVAE, "decode", lambda self, z, *a, **o: seen.append(z) or decode(self, z, *a, **o))
    path = call(sample, *args)
    monkeypatch.undo()
    return path, seen[-1]


def test_each_modality_is_decoded_from_its_own_latents(own, tmp_path, monkeypatch):
    """Unlike without the option, where one z decodes all; given latents stay those of their experts."""
    common = (own, "--out-dir", tmp_path, "--n-samples", 5, "--n-modalities", 3, "--demo")
    path, z = decoded_by(monkeypatch, *common)
    assert path.name == "prior.png" and z.shape == (5, 4)
    for kind in ("maf", "score"):
        path, z = decoded_by(monkeypatch, *common, "--latent-prior", kind)
        assert path.name == f"{kind}.png" and [*z] == ["m0", "m1", "m2"]
        assert all(x.shape == (5, 4) for x in z.values()) and not z["m0"].equal(z["m1"])
        model = load_model(own)
        torch.manual_seed(0)
        drawn = fitted_priors.load(own, kind, model).sample((5,))
        assert all(x.equal(drawn[:, m]) for m, x in enumerate(z.values()))
    path, z = decoded_by(monkeypatch, *common, "--given", "m0", "m2", "--latent-prior", "score")
    assert path.name == "from_m0_m2_score.png"
    examples = import_module("polymnist.data").load("test", sample.Config(own, demo=True, n_modalities=3))
    q = model.posterior(examples.only(model.modalities)[:5])
    spread = q.components.stddev  # (5, 3, 4)
    for m, name in ((0, "m0"), (2, "m2")):
        assert ((z[name] - q.components.mean[:, m]).abs() < 5 * spread[:, m]).all()
    path, z = decoded_by(monkeypatch, *common, "--given", "m0", "m2")
    assert path.name == "from_m0_m2.png" and z.shape == (5, 4)


def test_given_modalities_need_latents_of_their_own(run, monkeypatch):
    with pytest.raises(InputError, match="--given with --latent-prior needs latents of each modality, as models of"):
        call(sample, run, "--demo", "--given", "m0", "--latent-prior", "score")
    monkeypatch.setattr(sample.Config, "SCORED", ())  # as in folders that draw all of z from q(z|x_given)
    with pytest.raises(InputError, match="--latent-prior stands in for the prior, and --given does not draw from"):
        call(sample, run, "--demo", "--given", "m0", "--latent-prior", "score")


def test_joint_coherence_of_each_stand_in_is_reported(run, tmp_path, capsys):
    options = ("--demo", "--limit", 40, "--no-umap", "--no-by-size", "--n-samples", 20, "--data-dir", tmp_path)
    folder = shutil.copytree(run, tmp_path / "run")
    figures = call(analyse, folder, *options, "--mixture", 2, "--latent-prior", "maf", "score")
    joint = [name for name in figures if name.startswith("coherence, joint")]
    assert joint == ["coherence, joint", *(f"coherence, joint, z from {x}" for x in ("2 Gaussians", "maf", "score"))]


@pytest.mark.parametrize("folder", ["run", "own"])
def test_the_explorer_draws_from_it_where_nothing_is_given(folder, request):
    folder = request.getfixturevalue(folder)
    model = load_model(folder)
    latents = fitted_priors.load(folder, "maf", model)
    explorer, plain = (Explorer(model, VIEWS["polymnist"], x) for x in (latents, None))
    n, moved = len(explorer.views), [1.0] * len(explorer.dimensions)
    with fixed_noise(7, model.device):
        expected = model.draw_latents(1, latents)
    drawn, of_prior = explorer.at({}, 7), plain.at({}, 7)
    if isinstance(expected, dict):
        assert all(drawn[name].equal(x) for name, x in expected.items())
    else:
        assert drawn.equal(expected) and not drawn.equal(of_prior)
    assert explorer.at({}).equal(plain.at({}))
    frames = {x.frame([None] * n, 7, moves) for x in (explorer, plain) for moves in ([], moved)}
    assert len(frames) == 4


EXPERIMENTS = [
    "polymnist",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            *("mnist", "fashionmnist", "multimnist", "celeba", "celeba19", "mnist_svhn", "cub", "vision"),
            "translation",
        )
    ),
]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_folder_that_has_the_option_can_fit(experiment, trained, tmp_path):
    folder = shutil.copytree(trained(experiment), tmp_path / "run")
    config, model = latent_prior.Config(folder, demo=True, limit=40, epochs=1), load_model(folder)
    examples = latent_prior.training_examples(config, model)
    assert isinstance(examples, Examples) and set(examples[:1].modalities) == set(model.modalities)
    latent_prior.main(config)
    assert fitted_priors.load(folder, "maf", model).sample((2,)).shape == (2, model.latent_dim)


def test_it_is_fitted_to_the_training_split(run):
    config = latent_prior.Config(run, demo=True, limit=40)
    found = latent_prior.training_examples(config, load_model(run))[:].modalities
    of_run = default_of(polymnist_train.Config(pre_trained=run, demo=True, limit=40, valid=0), None, None)
    splits = {split: polymnist_train.experiment().load(split, of_run)[:].modalities for split in ("train", "test")}
    assert all(found[name].equal(splits["train"][name]) for name in found)
    assert not all(found[name].equal(splits["test"][name][:40]) for name in found)


def test_examples_that_lack_modalities_are_left_out(tmp_path):
    folder = tmp_path / "run"
    options = ("--demo", "--missing", 0.2, "--networks", "small", "--n-latents", 4, "--n-modalities", 3)
    call(polymnist_train, *options, "--epochs", 1, "--limit", 60, "--batch-size", 20, "--save-dir", folder)
    config = latent_prior.Config(folder, demo=True, limit=60)
    examples = latent_prior.training_examples(config, load_model(folder))
    assert examples.mask is None and 20 < len(examples) < 50
