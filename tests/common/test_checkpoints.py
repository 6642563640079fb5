import codecs
import resource
import zipfile
from collections import OrderedDict
from dataclasses import asdict, dataclass
from types import SimpleNamespace

from common.authors_files import MmvaeArgs
from common.checkpoints import BEST, experiment_of, load, load_config, load_model, start_from
from common.data import Examples
from common.encoders_decoders import SplitLinearLayer
from common.errors import InputError
from common.io import save_tensors
from common.likelihoods import GroupedLikelihood, SphericalGaussianLikelihood
from common.models import MVAE
from common.objectives import StandardElbo
from mnist.model import build
from tools import estimator
from training import Trainer
from training.options import RunConfig
from training.runs import Run

import pytest
import torch
from torch import nn


def ours(**changes):
    model = build(SimpleNamespace(n_latents=3, model="mvae", posterior="gaussian"))
    return {
        "experiment": "mnist",
        "config": {"n_latents": 3, "model": "mvae", "posterior": "gaussian"},
        "state_dict": model.state_dict(),
    } | changes


def test_a_model_comes_back_as_it_was(tmp_path):
    checkpoint = ours()
    save_tensors(tmp_path / "model_best.pth.tar", checkpoint)
    for path in (tmp_path, tmp_path / "model_best.pth.tar", str(tmp_path)):
        model = load_model(path)
        assert not model.training
        assert all(model.state_dict()[name].equal(x) for name, x in checkpoint["state_dict"].items())


@pytest.mark.parametrize("zip_format", [True, False])
def test_truncated_or_changed_files_are_refused_in_one_line(tmp_path, zip_format):
    path = tmp_path / "c.pth.tar"
    torch.save(ours(state_dict={"a": torch.zeros(1000)}), path, _use_new_zipfile_serialization=zip_format)
    content = path.read_bytes()
    cut = [content[:n] for n in range(0, len(content), len(content) // 10)]
    for damaged in (*cut, b"hello", b"<html>quota exceeded</html>"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged or not a checkpoint") as error:
            load(path)
        assert "\n" not in str(error.value)


class Hostile:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return eval, (self.command,)


@pytest.mark.parametrize("zip_format", [True, False])
def test_code_is_refused_and_never_run(tmp_path, zip_format):
    path, trace = tmp_path / "model_best.pth.tar", tmp_path / "was-here"
    torch.save({"state_dict": Hostile(f"open({str(trace)!r}, 'w')")}, path, _use_new_zipfile_serialization=zip_format)
    with pytest.raises(InputError, match=r"refused: it holds .*eval, and loading that could run code"):
        load_model(path)
    assert not trace.exists()


class Called:
    """A call that torch's own loader of tensors allows."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize(
    "call",
    [(bytearray, 3 << 30), (codecs.encode, "ab" * 200_000, "punycode"), (torch.FloatTensor, 1 << 30), (complex, 1, 2)],
)
def test_calls_that_take_memory_or_time_are_refused_before_they_are_made(tmp_path, monkeypatch, zip_format, call):
    path = tmp_path / "model_best.pth.tar"
    torch.save({"state_dict": Called(*call)}, path, _use_new_zipfile_serialization=zip_format)
    if zip_format:  # torch finds it in capitals too
        path.write_bytes(path.read_bytes().replace(b"/data.pkl", b"/DATA.PKL"))
    monkeypatch.setattr(torch, "load", lambda *args, **options: pytest.fail("it was unpickled"))
    with pytest.raises(InputError, match=r"refused: it holds \S+, and loading that could run code or fill the memory"):
        load(path)


@pytest.mark.parametrize("zip_format", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.uint8])
def test_tensors_of_every_type_are_loaded(tmp_path, zip_format, dtype):
    path, content = tmp_path / "c.pth.tar", {"a": [torch.nn.Parameter(torch.ones(2)), torch.ones(3, 1).to(dtype)]}
    torch.save(OrderedDict(content), path, _use_new_zipfile_serialization=zip_format)
    torch.testing.assert_close(load(path), content)


def test_half_a_character_in_a_field_is_one_line(tmp_path):
    for checkpoint in (ours(config={"n_latents": "\ud800"}), ours(format="\ud800")):
        save_tensors(tmp_path / BEST, checkpoint)
        with pytest.raises(InputError, match="is damaged, .*surrogates not allowed") as error:
            load_model(tmp_path)
        assert "\n" not in str(error.value)


def test_thousands_of_modalities_are_refused_before_they_are_built(tmp_path, monkeypatch):
    kinds = {f"m{i}": {"type": "Continuous", "columns": 1} for i in range(501)}
    monkeypatch.setattr(estimator, "build", lambda config: pytest.fail("it was built"))
    save_tensors(tmp_path / BEST, ours(experiment="estimator", config={"modalities": kinds}))
    with pytest.raises(InputError, match="length <= 500 - at `.*modalities`"):
        load_model(tmp_path)


def test_another_experiments_checkpoint_is_named(tmp_path):
    path = tmp_path / "model_best.pth.tar"
    save_tensors(path, ours())
    with pytest.raises(InputError, match="a checkpoint of mnist, not of celeba"):
        load_model(path, "celeba")
    save_tensors(path, ours(experiment="os.path"))
    with pytest.raises(InputError, match="experiment 'os.path', which is none of mnist"):
        load_model(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (ours(config={"n_latents": 5}), "does not fit the networks of mnist"),
        (ours(state_dict={}), "does not fit the networks of mnist: it lacks decoder.image"),
        (ours(state_dict={"x": torch.zeros(1).expand(9)}), "is damaged, it holds odd tensors"),
        ({"state_dict": {"conv1.weight": torch.zeros(2)}}, "not a checkpoint of this repository"),
        ([1, 2], "Expected `object`, got `array`"),
        (torch.zeros(3), "'Tensor' object has no attribute 'keys'"),
        ({"experiment": "mnist"}, "missing required field `config`"),
        (ours(config={"n_latents": 10**12}), r"Expected `int` <= 1000000"),
        (ours(state_dict={"encoder.image.1.0.weight": 3}), "expected Tensor, got int - at `.*state_dict"),
    ],
)
def test_files_that_are_no_checkpoint_of_a_model(tmp_path, content, message):
    torch.save(content, tmp_path / "model_best.pth.tar")
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


@dataclass
class PairsConfig(RunConfig):
    """The options of an experiment that is not in the repository."""

    n_latents: int = 2
    batch_size: int = 4
    epochs: int = 1
    annealing_epochs: int = 0
    lr: float = 1e-3


def build_pairs(config):
    return MVAE(
        encoder={name: SplitLinearLayer(3, (config.n_latents, config.n_latents)) for name in "ab"},
        decoder={name: nn.Linear(config.n_latents, 3) for name in "ab"},
        likelihood=GroupedLikelihood(a=SphericalGaussianLikelihood(1.0), b=SphericalGaussianLikelihood(1.0)),
        latent_dim=config.n_latents,
    )


def train_pairs(save_dir, **options):
    config = PairsConfig(save_dir=save_dir, **options)
    model, data = build_pairs(config), Examples({name: torch.randn(8, 3) for name in "ab"})
    with Run("pairs", config) as run:
        Trainer(model, StandardElbo(model), data, None, config, run).fit()
    return model


def assert_same_parameters(model, other):
    other = other.state_dict()
    assert all(x.equal(other[name]) for name, x in model.state_dict().items())


def test_a_run_outside_the_repository_is_loaded_with_its_build(tmp_path):
    trained = train_pairs(tmp_path, n_latents=3)
    model = load_model(tmp_path, build=build_pairs)
    assert not model.training and model.modalities == ("a", "b")
    assert_same_parameters(model, trained)
    assert_same_parameters(load_model(tmp_path / BEST, "pairs", build_pairs), trained)
    assert experiment_of(tmp_path) == "pairs" and load_config(tmp_path, "pairs")["n_latents"] == 3
    way_out = (
        r"'pairs', which is none of mnist.*: add it to OTHERS .*, or load it in Python with load_model\(path, build="
    )
    with pytest.raises(InputError, match=way_out):
        load_model(tmp_path)
    with pytest.raises(InputError, match="a checkpoint of pairs, not of mnist"):
        load_model(tmp_path, "mnist", build_pairs)
    with pytest.raises(InputError, match="does not fit the networks of pairs"):
        load_model(tmp_path, build=lambda config: build_pairs(SimpleNamespace(n_latents=config.n_latents + 1)))


def test_a_build_of_ones_own_serves_known_experiments_too(tmp_path):
    save_tensors(tmp_path / BEST, ours())
    seen = []
    model = load_model(tmp_path, build=lambda config: seen.append(config) or build(config))
    assert_same_parameters(model, load_model(tmp_path))
    assert seen == [SimpleNamespace(n_latents=3, model="mvae", posterior="gaussian")] * 2  # its sizes, then the model


def test_options_outside_the_repository_mean_what_their_code_says(tmp_path):
    config = {"n_latents": 2, "fusion": ["poe", "moe"], "likelihood": {"a": "normal"}}
    save_tensors(
        tmp_path / BEST, {"experiment": "pairs", "config": config, "state_dict": train_pairs(tmp_path).state_dict()}
    )
    assert load_model(tmp_path, build=build_pairs).modalities == ("a", "b")
    save_tensors(tmp_path / "of_ours.pt", ours(config={"n_latents": 3, "fusion": ["poe", "moe"]}))
    with pytest.raises(InputError, match=r"config, is damaged, .*fusion"):
        load_config(tmp_path / "of_ours.pt")


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    """torch.save stores: an archive that promises more than its size would only fill the memory."""
    save_tensors(tmp_path / BEST, ours())
    with zipfile.ZipFile(tmp_path / BEST) as old, zipfile.ZipFile(tmp_path / "c.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, bytes(10**7) if name.endswith("data/0") else old.read(name))
    with pytest.raises(InputError, match=r"c.pt is damaged or not a checkpoint \(it unpacks to .*: give a whole"):
        load(tmp_path / "c.pt")


def test_a_run_outside_the_repository_starts_from_another(tmp_path):
    trained = train_pairs(tmp_path / "first")
    model = train_pairs(tmp_path / "second", pre_trained=tmp_path / "first", lr=1e-12)
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, trained.state_dict()[name], rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="with --n-latents 2, not --n-latents 5: .* leave out --n-latents"):
        train_pairs(tmp_path / "third", pre_trained=tmp_path / "first", n_latents=5)
    with pytest.raises(InputError, match="a checkpoint of pairs, not of mnist"):
        start_from(tmp_path / "first", model, "mnist", asdict(PairsConfig()))


def test_weights_that_are_not_finite_or_mean_something_else_are_refused(tmp_path):
    broken, model = ours(), build(SimpleNamespace(n_latents=3, model="mvae", posterior="gaussian"))
    broken["state_dict"]["decoder.text.1.bias"][3] = torch.inf
    save_tensors(tmp_path / BEST, broken)
    for use in (lambda: load_model(tmp_path), lambda: start_from(tmp_path, model, "mnist", broken["config"])):
        with pytest.raises(InputError, match=r"not finite, in decoder.text.1.bias"):
            use()
    with pytest.raises(InputError, match="gaussian, not --posterior laplace: .* leave out --posterior"):
        start_from(tmp_path, model, "mnist", broken["config"] | {"posterior": "laplace"})


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path):
    """The limit on a file's size makes the kernel refuse the write half-way, as a full disk does."""
    path = tmp_path / "checkpoint.pth.tar"
    save_tensors(path, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(InputError, match="could not be written .*the previous file is kept"):
            save_tensors(path, {"epoch": 2, "weights": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert load(path) == {"epoch": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pth.tar"]


def test_the_elbo_of_the_mmvae_authors_draws_one_sample():
    args = MmvaeArgs("cubIS", 4, True, 0.0, obj="elbo", K=50, looser=True)
    model = {"n_latents": 4, "learn_prior": True, "llik_scaling": 0.0}
    assert args.config() == model | {"obj": "elbo-importance", "K": 1, "looser": False}
    args = MmvaeArgs("cubIS", 4, True, 0.0, obj="iwae", K=50)
    assert args.config() == model | {"obj": "iwae", "K": 50}
