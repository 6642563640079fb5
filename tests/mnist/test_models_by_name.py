"""What the models that --model names refuse and need."""

import pytest

import mnist.sample
import mnist.train
from common.errors import InputError
from tests.helpers.demo_runs import OPTIONS
from tests.helpers.scripts import call


def test_weights_of_another_family_are_not_taken(tmp_path):
    options = {"demo": True, "limit": 40, "epochs": 1, "n_latents": 4, "model": "bivcca"}
    mnist.train.main(mnist.train.Config(save_dir=tmp_path / "run", **options))
    other = {"posterior": "laplace", "pre_trained": tmp_path / "run", "save_dir": tmp_path / "other"}
    with pytest.raises(InputError, match="gaussian, not --posterior laplace: --pre-trained cannot"):
        mnist.train.main(mnist.train.Config(**options, **other))


@pytest.mark.parametrize("model", ["mvae", "mvae-q", "bivcca", "mopoe"])
def test_models_of_subsets_learn_from_unpaired_examples(model):
    mnist.train.Config(model=model, paired_fraction=0.5).check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "jmvae", "--paired-fraction", "0.5"], "--model jmvae has no use for unpaired examples"),
        (["--model", "cvae", "--paired-fraction", "0.5"], "--model cvae has no use for unpaired examples"),
        (
            ["--model", "jmvae", "--obj", "elbo"],
            "--obj elbo does not exist for --model jmvae: choose jmvae, student",
        ),
        (
            ["--model", "bivcca", "--obj", "ar"],
            "--obj ar does not exist for --model bivcca",
        ),
        (
            ["--posterior", "laplace"],
            "there is no fusion poe for laplace experts, only for gaussian, vmf, ebm ones",
        ),
        (
            ["--model", "mvae-q", "--posterior", "vmf"],
            "there is no fusion quotient for vmf experts, only for gaussian ones",
        ),
        (["--obj", "iwae", "--K", "0"], "--K must be positive, not 0"),
        (
            ["--obj", "dreg", "--looser"],
            "--looser takes the mean over a mixture's components, and --model mvae is no",
        ),
        (["--model", "vae", "--lambda-text", "2"], "--model vae scores the image alone: leave out --lambda-text"),
        (["--model", "cvae", "--lambda-text", "2"], "--model cvae scores the image alone: leave out --lambda-text"),
        (["--model", "vae", "--paired-fraction", "0.5"], "--model vae has no use for unpaired examples"),
        (["--model", "jmvae", "--alpha", "-1"], "--alpha must not be negative, it is -1"),
        (["--model", "mvae", "--obj", "jmvae"], "--obj jmvae does not exist for --model mvae"),
    ],
)
def test_models_refuse_what_does_not_go_with_them(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        call(mnist.train, *OPTIONS, *options, "--save-dir", tmp_path)


def test_a_vae_has_no_text_and_a_cvae_needs_it(tmp_path):
    for model in ("vae", "cvae"):
        call(mnist.train, *OPTIONS, "--limit", 60, "--model", model, "--save-dir", tmp_path / model)
    with pytest.raises(InputError, match="this model has no text"):
        call(mnist.sample, tmp_path / "vae", "--condition-on-text", 3)
    for given in ([], ["--demo", "--condition-on-image", 3]):
        with pytest.raises(InputError, match="give it --condition-on-text"):
            call(mnist.sample, tmp_path / "cvae", *given)
    call(mnist.sample, tmp_path / "cvae", "--condition-on-text", 3, "--n-samples", 2)
