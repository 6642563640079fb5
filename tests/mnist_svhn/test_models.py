"""Every --model of mnist_svhn on the demo's images: its defaults, training, and all scripts on it."""

import json

import pytest
import torch
from torch.distributions import Laplace, Normal

from common.checkpoints import load_model
from common.errors import InputError
from mnist_svhn import analyse, loglike, sample, train
from mnist_svhn import classifier as classifiers
from mnist_svhn.model import Clamp, build
from mnist_svhn.options import MODELS
from tests.helpers.scripts import call, run_script
from training import objective_of

SMALL = ("--demo", "--limit", 24, "--epochs", 1, "--batch-size", 12, "--n-latents", 4)
PRIVATE = [name for name, model in MODELS.items() if model.private]
DEFAULTS = {  # objective, family, K, whether the prior's scales are learned
    "mmvae": ("dreg", "laplace", None, True),
    "mnist": ("dreg", "laplace", None, True),
    "svhn": ("dreg", "laplace", None, True),
    "mvae": ("mvae", "normal", None, False),
    "mopoe": ("elbo", "normal", None, False),
    "mopoe-published": ("elbo-one", "normal", None, False),
    "mvtcae": ("mvtcae", "normal", None, False),
    "crmvae": ("crmvae", "normal", None, False),
    "mmjsd": ("mmjsd", "normal", None, False),
    "jmvae": ("jmvae", "normal", None, False),
    "jnf": ("jnf", "normal", None, False),
    "telbo": ("telbo", "normal", None, False),
    "dmvae": ("dmvae", "normal", None, False),
    "mmvae+": ("iwae", "laplace", 1, False),
    "cmvae": ("iwae", "laplace", 1, False),
}


def small(model, **changes):
    """A config with few latents."""
    private = {"n_private": (1, 2)} if model in PRIVATE else {}
    return train.Config(model=model, n_latents=3, **private | changes)


FAST = ("cmvae",)
SLOW = [name for name, (*_, learned) in DEFAULTS.items() if not learned and name not in FAST]


@pytest.fixture(
    scope="module",
    params=[*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)],
)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    private = ("--n-private", 2, 3) if request.param in PRIVATE else ()
    call(train, *SMALL, "--model", request.param, *private, "--save-dir", folder)
    return folder


@pytest.mark.parametrize("name", MODELS)
def test_each_model_has_its_own_defaults(name):
    config = train.Config(model=name)
    config.check()
    assert (config.obj, config.prior_and_posterior, config.K, bool(config.learn_prior)) == DEFAULTS[name]
    p, learned = build(config).prior(), build(config).prior.parameters()
    if name != "cmvae":
        assert isinstance(p.base_dist, Laplace if DEFAULTS[name][1] == "laplace" else Normal)
        assert any(x.requires_grad for x in learned) == DEFAULTS[name][3]


def test_private_latents_are_by_default_those_of_dmvaes_code():
    config = train.Config(model="dmvae")
    model = build(config)
    assert (config.n_latents, config.n_private, model.latent_dim) == (10, (1, 4), 15)
    parts = {name: modality.part_of(torch.arange(15)).tolist() for name, modality in model.modality.items()}
    shared = [*range(10)]
    assert parts == {"mnist": [*shared, 10], "svhn": [*shared, 11, 12, 13, 14]}
    cmvae = train.Config(model="cmvae")
    assert (cmvae.n_latents, cmvae.n_private, cmvae.n_clusters) == (10, (10, 10), 40)
    assert build(cmvae).prior.loc.shape == (40, 10)


@pytest.mark.parametrize("name", MODELS)
def test_every_models_bound_is_finite_and_reaches_its_networks(name):
    """Also where examples lack either image, if the model can learn from those."""
    torch.manual_seed(0)
    config = small(name)
    objective = objective_of(config, build(config))
    inputs = {"mnist": torch.rand(6, 1, 28, 28), "svhn": torch.rand(6, 3, 32, 32)}
    inputs = {modality: inputs[modality] for modality in objective.model.modalities}
    if MODELS[name].unpaired:
        inputs["mnist"][0], inputs["svhn"][1:3] = torch.nan, torch.nan
    objective(inputs, 0.5).backward()
    for parameter, x in objective.model.named_parameters():
        assert not x.requires_grad or (x.grad.isfinite().all() and x.grad.any()), parameter


@pytest.mark.parametrize("name", PRIVATE)
def test_private_latents_of_an_absent_image_have_the_prior(name):
    config = small(name, n_clusters=4 if name == "cmvae" else None)
    model = build(config).eval()
    x = {"mnist": torch.rand(2, 1, 28, 28), "svhn": torch.rand(2, 3, 32, 32)}
    own, spread = model.modality["svhn"].private_latents, Laplace(0.0, 1.0).stddev if name != "dmvae" else 1.0
    with torch.no_grad():
        absent, present = model.posterior({"mnist": x["mnist"]}), model.posterior(x)
    torch.testing.assert_close(absent.mean[:, own], torch.zeros(2, 2))
    torch.testing.assert_close(absent.stddev[:, own], torch.full((2, 2), float(spread)))
    assert (present.mean[:, own] != 0).all()
    assert {m: p.mean.shape[1:] for m, p in model.decode(absent.mean).items()} == {
        "mnist": (1, 28, 28),
        "svhn": (3, 32, 32),
    }


@pytest.mark.slow
def test_training_samples_likelihoods_and_coherence(trained, monkeypatch, capsys):
    line = json.loads((trained / "metrics.jsonl").read_text())
    assert all(torch.tensor([*line[split].values()]).isfinite().all() for split in ("train", "valid"))
    call(sample, trained, "--n-samples", 4)
    for given in ("mnist", "svhn"):
        call(sample, trained, "--demo", "--limit", 6, "--given", given, "--n-samples", 4)
    call(sample, trained, "--demo", "--limit", 24, "--mixture", 2, "--n-samples", 4)
    call(sample, trained, "--traverse")
    if load_model(trained).prior.is_mixture:
        call(sample, trained, "--cluster", 3, "--n-samples", 4)
        assert (trained / "samples" / "cluster_3.png").exists()
    kinds = ("prior", "mixture_2", "from_mnist", "from_svhn", "along_latents_mnist", "along_latents_svhn")
    assert {f"{kind}.png" for kind in kinds} <= {path.name for path in (trained / "samples").iterdir()}
    estimates = call(loglike, trained, "--demo", "--limit", 3, "--n-samples", 3)
    names = {"log p(mnist,svhn)", "log p(mnist)", "log p(svhn)", "log p(svhn), z from q(z|mnist)"}
    assert names <= set(estimates) and all(estimates[name]["mean"] < 0 for name in names)
    monkeypatch.setattr(classifiers, "STEPS", 2)
    measured = call(analyse, trained, "--demo", "--limit", 12, "--n-samples", 10, "--no-umap", "--data-dir", trained)
    assert {"coherence, mnist -> svhn", "coherence, svhn -> mnist", "coherence, joint"} <= set(measured)
    assert {"latent accuracy, mnist", "latent accuracy, svhn"} <= set(measured)


@pytest.mark.slow
def test_a_run_with_private_latents_goes_on(tmp_path, capsys):
    """Resumed, and as the weights and options of another run."""
    args = [str(x) for x in (*SMALL, "--model", "dmvae", "--n-private", 2, 3, "--no-analytics")]
    for epochs in ("1", "2"):
        more = ["--epochs", epochs, "--resume", "--save-dir", str(tmp_path / "run")]
        run_script(train, [*args, *more])
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 2
    taken = ["--pre-trained", str(tmp_path / "run"), "--epochs", "1", "--save-dir"]
    run_script(train, [*taken, str(tmp_path / "more")])
    assert load_model(tmp_path / "more").latent_dim == 4 + 2 + 3
    for options, message in (
        (
            [*args, "--n-private", "2", "4", "--resume", "--save-dir", str(tmp_path / "run")],
            "2 3, not --n-private 2 4: --resume",
        ),
        ([*taken, str(tmp_path / "other"), "--n-private", "2", "4"], "2 3, not --n-private 2 4: --pre-trained"),
    ):
        with pytest.raises(SystemExit, match="^2$"):
            run_script(train, options)
        assert message in capsys.readouterr().err


def test_the_papers_estimate_is_refused_where_latents_come_from_auxiliary_priors(tmp_path):
    call(train, *SMALL, "--model", "mmvae+", "--no-analytics", "--save-dir", tmp_path)
    with pytest.raises(
        InputError, match="--paper needs importance weights of all latents, those of .* leave out its auxiliary priors"
    ):
        call(loglike, tmp_path, "--demo", "--limit", 2, "--paper")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--n-private", 1, 4), "--n-private needs a model with private latents, not --model mmvae"),
        (("--model", "dmvae", "--n-private", 0, 1), "--n-private of --model dmvae must be positive, not 0 1"),
        (
            ("--model", "mmvae+", "--n-clusters", 3),
            "--n-clusters needs a model with a prior of clusters, not --model mmvae",
        ),
        (("--model", "cmvae", "--n-clusters", 0), "--n-clusters must be positive, not 0"),
        (
            ("--prior-and-posterior", "vmf", "--learn-prior"),
            "the prior of vmf experts has no scales",
        ),
        (("--model", "cmvae", "--learn-prior"), "a clustered prior has fixed scales"),
        (("--model", "mvtcae", "--prior-and-posterior", "laplace"), "there is no fusion product for laplace experts"),
        (("--model", "mmjsd", "--prior-and-posterior", "laplace"), "--obj mmjsd needs Gaussian experts, not laplace"),
        (("--model", "mmvae", "--obj", "mmjsd"), "--obj mmjsd needs Gaussian experts, not laplace ones"),
        (("--model", "dmvae", "--prior-and-posterior", "vmf"), "private latents need another family: vmf experts"),
        (("--model", "mmvae+", "--obj", "elbo"), "--model mmvae.: choose iwae, dreg, stl"),
        (("--model", "mvtcae", "--K", 5), "--K needs --obj dreg, iwae or stl .got --obj mvtcae"),
    ],
)
def test_models_that_do_not_exist_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        call(train, "--demo", *options, "--save-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_authors_clamp():
    clamp = Clamp()
    assert clamp(torch.tensor([0.0, 1e-5, 0.5, 1.0], dtype=torch.float64)).tolist() == [1e-6, 1e-5, 0.5, 1 - 1e-6]
