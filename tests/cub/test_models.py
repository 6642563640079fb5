"""The models that --fusion, --obj and --n-clusters of cub make, on drawn birds; all scripts on one of each kind."""

import json

import pytest
import torch
import tyro

from common.checkpoints import load_model
from common.errors import InputError
from cub import analyse, loglike, sample, sentences, train
from cub import classifier as readers
from cub.model import build
from tests.helpers.authors import WORDS
from tests.helpers.scripts import call
from training import objective_of

SMALL = ("--demo", "--limit", 4, "--valid", 1, "--epochs", 1, "--batch-size", 15, "--n-latents", 4)
MODELS = {  # options: objective, family, K, private latents, whether the prior's scales are learned
    "": ("dreg", "laplace-normal", 50, None, True),
    "--fusion poe": ("mvae", "gaussian", None, None, False),
    "--fusion mopoe": ("dreg", "gaussian", 50, None, False),
    "--fusion product": ("mvtcae", "gaussian", None, None, False),
    "--fusion product --obj crmvae": ("crmvae", "gaussian", None, None, False),
    "--fusion mopoe-published": ("elbo-one", "gaussian", None, None, False),
    "--obj mmjsd": ("mmjsd", "gaussian", None, None, False),
    "--fusion joint": ("jmvae", "gaussian", None, None, False),
    "--fusion joint --obj telbo": ("telbo", "gaussian", None, None, False),
    "--fusion jnf": ("jnf", "gaussian", None, None, False),
    "--fusion poe --obj dmvae": ("dmvae", "gaussian", None, 16, False),
    "--fusion poe --n-private 3": ("dmvae", "gaussian", None, 3, False),
    "--fusion poe --n-private 3 --obj dreg": ("dreg", "gaussian", 50, 3, False),
    "--fusion mmvae+": ("iwae", "laplace", 1, 16, False),
    "--fusion mmvae+ --n-clusters 5": ("iwae", "laplace", 1, 16, False),
}
NEWER = [options for options, (*_, learned) in MODELS.items() if not learned]
FAST = ("--fusion mmvae+ --n-clusters 5",)
SLOW = ("--fusion product", "--fusion joint --obj telbo", "--fusion jnf", "--fusion poe --obj dmvae")


def config(*options):
    """The config of these options."""
    return tyro.cli(train.Config, args=[str(x) for x in options])


@pytest.fixture(
    scope="module",
    params=[*FAST, *(pytest.param(options, marks=pytest.mark.slow) for options in SLOW)],
)
def trained(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    private = ("--n-private", 2) if MODELS[request.param][3] else ()
    options = (*SMALL, "--model", "features", *request.param.split(), *private)
    call(train, *options, "--save-dir", folder)
    return folder


@pytest.mark.parametrize("options", MODELS)
def test_each_model_has_its_own_defaults(options):
    given = config(*options.split())
    given.check()
    names = ("obj", "posterior", "K", "n_private", "learn_prior")
    assert tuple(getattr(given, name) for name in names) == MODELS[options]
    assert (given.n_latents, given.batch_size) == (128, 64)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["images", "features"])
@pytest.mark.parametrize("options", NEWER)
def test_every_models_bound_is_finite_and_reaches_its_networks(options, kind):
    """Also where examples lack a photograph or a caption, if the model can learn from those."""
    torch.manual_seed(0)
    private = ("--n-private", 2) if MODELS[options][3] else ()
    given = config("--model", kind, "--n-latents", 3, *options.split(), *private)
    given.vocabulary = WORDS
    model = build(given)
    assert model.latent_dim == 3 + (4 if private else 0)
    objective = objective_of(given, model)
    source = model.modalities[0]
    x = {"image": torch.rand(6, 3, 64, 64), "feature": torch.rand(6, 2048)}[source]
    words = torch.randint(3, len(WORDS), (6, 32))
    if given.record().unpaired:
        x[0], words[1:3] = torch.nan, -1
    objective({source: x, "caption": words}, 0.5).backward()
    for name, p in model.named_parameters():
        assert not p.requires_grad or (p.grad.isfinite().all() and p.grad.any()), name


@pytest.mark.parametrize("fusion", ["joint", "jnf"])
def test_the_decoder_has_the_joint_encoders_words(fusion):
    """A caption encoder that is fitted to the joint one would else change what is decoded."""
    given = config("--model", "features", "--n-latents", 3, "--fusion", fusion)
    given.vocabulary = WORDS
    model = build(given)
    joint, vocabulary = model.encoder["feature,caption"].caption[0].weight, model.decoder["caption"][-1].weight
    assert joint is vocabulary and model.encoder["caption"][0].weight is not joint


@pytest.mark.slow
def test_training_samples_likelihoods_and_analysis(trained, monkeypatch):
    line = json.loads((trained / "metrics.jsonl").read_text())
    assert all(torch.tensor([*line[split].values()]).isfinite().all() for split in ("train", "valid"))
    demo = ("--demo", "--limit", 4)
    call(sample, trained, *demo, "--n-samples", 3)
    call(sample, trained, *demo, "--n-samples", 3, "--condition-on-text", "a bird has yellow wings")
    for given in ("feature", "caption"):
        call(sample, trained, *demo, "--n-samples", 3, "--given", given)
    if load_model(trained).prior.is_mixture:
        call(sample, trained, *demo, "--n-samples", 3, "--cluster", 3)
        assert {path.name for path in (trained / "samples").glob("cluster_3.*")} == {"cluster_3.png", "cluster_3.txt"}
    written = {path.stem for path in (trained / "samples").glob("*.png")}
    assert {"prior", "given_text_a_bird_has_yellow_wings", "from_feature", "from_caption"} <= written
    estimates = call(loglike, trained, "--demo", "--limit", 2, "--n-samples", 3)
    names = {"log p(feature,caption)", "log p(caption)", "log p(caption), z from q(z|feature)"}
    assert names <= set(estimates) and all(torch.tensor(estimates[name]["mean"]).isfinite() for name in names)
    monkeypatch.setattr(sentences, "BUCKETS", 200)
    monkeypatch.setattr(readers, "BIRDS", 8)
    options = ("--demo", "--limit", 6, "--n-samples", 5, "--components", 2, "--feature-components", 3, "--mixture", 2)
    measured = call(analyse, trained, *options, "--no-umap", "--data-dir", trained)
    pairs = ("ground truth", "feature -> caption", "caption -> feature", "joint", "joint, z from 2 Gaussians")
    assert tuple(measured["correlations"]) == pairs and {*pairs} < {*measured["coherence"]}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--n-private 3", "--n-private needs a model with private latents, not --fusion moe"),
        ("--fusion poe --n-private 0", "--n-private of --fusion poe must be positive, not 0"),
        ("--fusion mmvae+ --n-private 0", "--n-private of --fusion mmvae. must be positive, not 0"),
        ("--fusion poe --n-clusters 4", "--n-clusters needs a model with a prior of clusters, not --fusion poe"),
        ("--fusion mmvae+ --n-clusters 0", "--n-clusters must be positive, not 0"),
        ("--fusion mmvae+ --n-clusters 3 --learn-prior", "a clustered prior has fixed scales"),
        ("--fusion mmvae+ --posterior laplace-normal", "there is no fusion mmvae. for laplace-normal experts"),
        ("--fusion mopoe-published --posterior vmf", "there is no fusion mopoe-published for vmf experts"),
        ("--fusion poe --obj dmvae --posterior vmf", "private latents need another family: vmf experts"),
        ("--obj mmjsd --posterior laplace", "--obj mmjsd needs Gaussian experts, not laplace ones"),
        ("--obj dmvae", "--obj dmvae does not exist"),
        ("--fusion poe --obj mvtcae", "--obj mvtcae does not exist for --fusion poe"),
        ("--model image --fusion mmvae+", "--fusion mmvae.: --model image has one expert, leave it out"),
    ],
)
def test_models_that_do_not_exist_are_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        call(train, "--demo", *options.split(), "--save-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()
