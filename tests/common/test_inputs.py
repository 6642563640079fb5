"""Values that a model cannot take, given to it directly: one line that names the modality."""

from types import SimpleNamespace

from common.data import Batch, Examples
from common.encoders_decoders import SplitLinearLayer, WithMissing
from common.errors import InputError
from common.estimators import log_marginal
from common.likelihoods import CategoricalLikelihood, GroupedLikelihood, SphericalGaussianLikelihood
from common.models import VAE
from common.objectives import IwaeElbo, MvaeElbo
from common.variational_strategies import MoeStrategy, MopoeStrategy
from mnist.model import build

import pytest
import torch
from torch import nn

MODEL = build(SimpleNamespace(n_latents=4, model="mvae", posterior="gaussian")).eval()
IMAGE, TEXT = torch.rand(3, 1, 28, 28), torch.tensor([1, 2, 3])


REFUSED = [  # images, text, and what is said
    (torch.rand(3, 1, 32, 32), TEXT, r"image has values of shape \(3, 1, 32, 32\), which its decoder does not give"),
    (IMAGE[:, 0], TEXT, r"image has values of shape \(3, 28, 28\), and its likelihood takes 3 dimensions for each"),
    (IMAGE, torch.tensor([1, 10, 2]), "text has the class 10, its decoder gives the classes 0 to 9: count classes f"),
    (IMAGE, nn.functional.one_hot(TEXT, 10), r"text has values of shape \(3, 10\), .*give classes, x.argmax"),
    (IMAGE, TEXT.float(), "text is torch.float32, which is no class: convert it with .lo"),
    (IMAGE.double(), TEXT, r"image is torch.float64, and the model torch.float32: convert it with .to.torch.float32"),
    ((255 * IMAGE).byte(), TEXT, "image is torch.uint8, and its likelihood takes floats: .* pixels of uint8 with / "),
    (2 * IMAGE - 1, TEXT, r"image has values outside \[0, 1\], and its likelihood takes no others: scale them"),
]


@pytest.mark.parametrize(("image", "text", "message"), REFUSED)
def test_values_that_do_not_fit_are_named(image, text, message):
    inputs = {"image": image, "text": text}
    for use in (
        MODEL.reconstruct,
        lambda x: MvaeElbo(MODEL)(x),
        lambda x: IwaeElbo(MODEL, K=2).backward(Batch(x), 1.0, 3),
        lambda x: log_marginal(MODEL, x, ("image", "text"), n_samples=2),
    ):
        with pytest.raises(InputError, match=message):
            use(inputs)


def test_what_a_mask_leaves_out_may_have_any_value():
    mask = torch.tensor([[True, True], [False, True], [True, True]])
    image = IMAGE.clone()
    image[1] = 200
    MvaeElbo(MODEL)(Batch({"image": image, "text": TEXT}, mask))
    with pytest.raises(InputError, match=r"image has values outside \[0, 1\]"):
        MvaeElbo(MODEL)(Batch({"image": image, "text": TEXT}, ~mask | mask))


def test_batches_of_examples_are_looked_at_once(monkeypatch):
    """Training has looked at all examples; a batch costs nothing more."""
    batch = Examples({"image": IMAGE, "text": TEXT}, incomplete=())[:]
    monkeypatch.setattr(torch.Tensor, "any", None)
    assert MODEL.observe(batch).observed == {}


def test_a_class_that_only_the_encoder_knows_is_refused():
    encoder = {"c": nn.Sequential(nn.Embedding(10, 3), SplitLinearLayer(3, (2, 2)))}
    model = VAE("poe", encoder, {"c": nn.Linear(2, 3)}, GroupedLikelihood(c=CategoricalLikelihood()), 2)
    for use in (lambda x: IwaeElbo(model).bound(x), lambda x: log_marginal(model, x, ("c",), n_samples=2)):
        with pytest.raises(InputError, match="c has the class 5, its decoder gives the classes 0 to 2: count classes"):
            use({"c": torch.tensor([1, 5])})


def test_the_encoder_that_fails_is_named():
    encoder = {"a": WithMissing(SplitLinearLayer(3, (2, 2)))}
    model = VAE("poe", encoder, {"a": nn.Linear(2, 3)}, GroupedLikelihood(a=SphericalGaussianLikelihood(1.0)), 2)
    with pytest.raises(RuntimeError) as error:
        model.posterior({"a": torch.rand(5, 3)})
    assert error.value.__notes__ == ["in the encoder of a, which was given a (5, 3)"]
    model.encoder["a"] = nn.Sequential(WithMissing(SplitLinearLayer(6, (2, 2))))
    with pytest.raises(InputError, match="WithMissing is a layer of another network: wrap the whole encoder in it"):
        model.posterior({"a": torch.rand(5, 3)})


def test_a_model_needs_no_parameters():
    model = VAE("poe", {"a": Doubled()}, {"a": nn.Identity()}, GroupedLikelihood(a=SphericalGaussianLikelihood(1.0)), 3)
    assert model.posterior({"a": torch.rand(5, 3)}).mean.shape == (5, 3)


class Doubled(nn.Module):
    def forward(self, x):
        return x, x


def test_latents_of_another_number_are_refused():
    with pytest.raises(InputError, match="z has 5 latents, the model 4: make them equal"):
        MODEL.decode(torch.zeros(2, 5))


@pytest.mark.parametrize("strategy", [MoeStrategy, MopoeStrategy])
def test_a_strategy_of_mixtures_makes_one(strategy):
    encoder = {name: SplitLinearLayer(3, (2, 2)) for name in "ab"}
    decoder = {name: nn.Linear(2, 3) for name in "ab"}
    likelihood = GroupedLikelihood(a=SphericalGaussianLikelihood(1.0), b=CategoricalLikelihood())
    by_name, given = (
        VAE(fusion, encoder, decoder, likelihood, 2) for fusion in (strategy.__name__[:-8].lower(), strategy())
    )
    x = {"a": torch.rand(5, 3)}
    assert given.variational_posterior.is_mixture
    torch.testing.assert_close(given.posterior(x).mean, by_name.posterior(x).mean)
