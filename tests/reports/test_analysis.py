"""The analysis that all folders share, on models whose figures are known; each folder of mnist's kind, end to end."""

import json
import sys
from importlib import import_module
from types import SimpleNamespace

import mnist.train
import translation.analyse
from common.checkpoints import load_model
from common.data import Examples
from common.errors import InputError
from mnist import analyse as digits
from mnist.data import MNIST
from reports import analysis, classifiers, latents, plots, tables
from reports.classifiers import judge_file
from reports.sampling import STEPS, Shown, cross_generation, traversals
from tests.helpers.coherence import C, model
from tests.helpers.demo_runs import TINY
from tests.helpers.scripts import call

import pytest
import torch
from torch.nn.functional import cross_entropy


def test_parameters_are_counted_by_network():
    assert analysis.parameter_counts(model()) == {"encoder a": 1, "encoder b": 1, "all": 2}


def test_judges_that_err_and_few_training_examples_are_noted():
    shares = {"classifier, a": 0.16, "classifier, b": 0.99, "coherence, joint": 0.1}
    shares = {name: {"mean": x, "stderr": 0.01} for name, x in shares.items()}
    weak, few, left_out = tables.notes_on(shares, 999, 2)
    assert weak == "Coherence says little where its judge errs on the test examples: classifier, a (16.0 %)."
    assert "on 999 training examples" in few and left_out == "Without 2 test examples that lack a modality."
    assert tables.notes_on({"classifier, b": shares["classifier, b"]}, 1000, 0) == []


def test_latents_of_a_picture_are_those_that_are_used():
    kls = {
        "KL(q(z|a) || p(z))": torch.arange(40.0).expand(3, -1),
        "J(q(z|a), q(z|b))": -torch.arange(40.0).expand(3, -1),
    }
    assert latents.most_used(kls, 20).tolist() == list(range(20, 40))
    each = {"KL of a": torch.tensor([[0.0, 0.0, 3.0]]), "KL of b": torch.tensor([[0.0, 2.0, 0.0]])}
    assert latents.most_used(each, 2).tolist() == [1, 2] and latents.most_used(each, 20).tolist() == [0, 1, 2]


def test_a_network_is_trained_once_and_kept(tmp_path):
    """A file made from something else is refused; the caller's random numbers are not touched."""
    x, trained = Examples({"x": torch.rand(300, 5)}), []
    labels = x.modalities["x"].argmax(dim=1, keepdim=True)

    def network(width=5):
        return torch.nn.Sequential(torch.nn.Linear(width, 5), torch.nn.Unflatten(1, (1, 5)))

    def kept(made_from, build=network):
        def train(net):
            trained.append(made_from)

            def loss(rows):
                return cross_entropy(net(x.modalities["x"][rows])[:, 0], labels[rows, 0])

            classifiers.fit(net, loss, len(x), steps=200, desc="it", lr=0.1)

        return classifiers.cached_network(build, train, tmp_path / "new" / "net.pt", made_from, torch.device("cpu"))

    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    first = kept({"n": 1})
    assert torch.rand(2).equal(expected)
    assert (first(x.modalities["x"]).argmax(dim=2) == labels).float().mean() > 0.8, "it has learned"
    again = kept({"n": 1})
    assert len(trained) == 1 and again[0].weight.equal(first[0].weight) and not again.training
    content = (tmp_path / "new" / "net.pt").read_bytes()
    with pytest.raises(InputError, match=r"net.pt is .* trained with other data .*\(other n\): delete it"):
        kept({"n": 2})
    with pytest.raises(InputError, match=r"\(other network\): delete it"):
        kept({"n": 1}, lambda: torch.nn.Sequential(*network(), torch.nn.Identity()))
    assert len(trained) == 1 and (tmp_path / "new" / "net.pt").read_bytes() == content
    (tmp_path / "new" / "net.pt").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"net.pt is damaged or not a checkpoint.*: delete it"):
        kept({"n": 1})


def test_pictures_show_each_pair_and_move_each_latent(trained, monkeypatch, tmp_path):
    model, drawn, seen = load_model(trained("mnist")), [], []
    for name in ("image_grid", "captioned"):
        monkeypatch.setattr(plots, name, lambda *args: drawn.append(args))
    shown = Shown(("image",), lambda values: MNIST.names(values["text"]))
    test = Examples({"image": torch.rand(3, 1, 28, 28), "text": torch.tensor([1, 2, 3])})
    cross_generation(tmp_path / "x.png", model, test, {"image": ("image",), "text": ("text",)}, shown)
    ((_, images, labels, captions, _),) = drawn
    assert labels == ["image, given", "image -> image", "text -> image"] and images.shape == (3, 3, 3, 28, 28)
    assert images[0, :, :1].equal(test.modalities["image"]) and list(captions[0]) == ["1", "2", "3"]

    def decode(z, *args, original=model.decode):
        seen.append(z)
        return original(z, *args)

    monkeypatch.setattr(model, "decode", decode)
    assert traversals(tmp_path / "along", model, shown, [4, 2]) == [tmp_path / "along_image.png"]
    z, prior = seen[0].view(2, STEPS, -1), model.prior()
    for row, d in enumerate((4, 2)):
        offsets = (z[row] - prior.mean) / prior.stddev
        assert offsets[[0, -1], d].tolist() == pytest.approx([-3, 3])
        assert offsets.abs().sum(dim=0).nonzero().flatten().tolist() == [d], "the others stay at the mean"


@pytest.mark.slow
def test_a_mixture_needs_two_modalities_that_are_generated(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "STEPS", 2)
    call(mnist.train, "--demo", *TINY, "--model", "cvae", "--save-dir", tmp_path)
    with pytest.raises(InputError, match="this model generates fewer, leave it out"):
        call(digits, tmp_path, "--demo", "--limit", 30, "--mixture", 2, "--no-umap", "--data-dir", tmp_path)
    assert not [*tmp_path.glob("*classifier*")], "no judge is trained before"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "sources", "targets"),
    [
        (("--model", "vae"), ("image",), ("image",)),
        (("--model", "cvae"), ("text",), ("image",)),
        (("--model", "bivcca", "--posterior", "vmf"), ("image", "text"), ("image", "text")),
    ],
)
def test_what_is_measured_of_models_that_the_golden_files_lack(tmp_path, monkeypatch, options, sources, targets):
    call(mnist.train, "--demo", *TINY, "--valid", 0, *options, "--save-dir", tmp_path)
    monkeypatch.setattr(digits, "STEPS", 2)
    kls = []
    monkeypatch.setattr(analysis, "kl_plot", lambda *args, plot=analysis.kl_plot: kls.append(plot(*args)) or kls[0])
    out = tmp_path / "out.json"
    args = ("--demo", "--limit", 30, "--n-test", 20, "--n-samples", 40, "--json", out, "--data-dir", tmp_path)
    found = call(digits, tmp_path, *args, "--no-umap", "--out-dir", tmp_path / "drawn")
    estimates = json.loads(out.read_text())["estimates"]
    assert {name: x["mean"] for name, x in estimates.items()} == found
    for name, kl in kls[0].items():
        x = kl.sum(dim=1)
        known = {"mean": x.mean().item(), "stderr": x.std().item() / 20**0.5}
        assert estimates.pop(name) == pytest.approx(known, rel=1e-4)
    p = estimates["classifier, image"]["mean"]
    assert estimates["classifier, image"]["stderr"] == pytest.approx((p * (1 - p) / 19) ** 0.5)
    expected = {"classifier, image"} | {f"latent accuracy, {name}" for name in sources}
    expected |= {f"coherence, {a} -> {b}" for a in sources for b in targets}
    if len(targets) > 1:
        expected |= {"coherence, joint"} | {f"coherence, text, aggregate -> {b}" for b in targets}
    assert set(estimates) == expected
    pictures = {path.name for path in (tmp_path / "drawn").glob("*.png")}
    assert {"kl.png", "cross_generation.png"} <= pictures
    assert ("traversal_image.png" in pictures) == (not {"cvae", "vmf"} & set(options))


def test_numbers_are_judged_by_a_dictionary():
    english, french = ["two thousand and seventeen", "zero", "two two"], ["deux mille dix sept", "zéro", ""]
    for language, texts in (("english", english), ("french", french)):
        read = translation.analyse.digits(texts, language).tolist()
        assert read == [[2, 0, 1, 7], [0, 0, 0, 0], [-1, -1, -1, -1]]


def test_judges_are_kept_in_the_data_dir(tmp_path):
    def file(**options):
        return judge_file(tmp_path, "x.pt", analysis.AnalysisConfig(tmp_path / "run", **options))

    assert file() == tmp_path / "x.pt" and file(demo=True) == tmp_path / "demo_x.pt"
    assert file(limit=50) == tmp_path / "x_first_50.pt" and file(limit=60) == tmp_path / "x_first_60.pt"
    assert file(demo=True, limit=50) == tmp_path / "demo_x_first_50.pt"
    assert file(n_test=50) == file(), "which leaves judges all training examples"


def test_judges_of_other_training_images_have_files_of_their_own(tmp_path, monkeypatch):
    """vision leaves out faces without a mask, and the options of MultiMNIST change its demo too."""
    kept, model = [], SimpleNamespace(modalities=("image",), modelled=("image",))
    for module, makes in (("celeba.analyse", "classifier"), ("mnist.analyse", "judge")):
        monkeypatch.setattr(import_module(module), makes, lambda *args: kept.append(args[-1].name))
    monkeypatch.setattr(import_module("mnist.analyse"), "load_config", lambda path: {})
    for folder, options in (
        *((folder, {}) for folder in ("celeba", "celeba19", "vision", "multimnist")),
        ("multimnist", {"demo": True, "max_digits": 2, "reverse": True}),
    ):
        analyse = import_module(f"{folder}.analyse")
        analyse.DATA.judges(analyse.Config(tmp_path, data_dir=tmp_path, **options), None, None, model)
    faces = "classifier_of_attributes"
    assert kept[:3] == [f"{faces}.pt", f"{faces}.pt", f"{faces}_of_faces_with_masks.pt"]
    assert kept[3:] == ["multimnist_classifier.pt", "demo_multimnist_max_digits_2_reverse_True_classifier.pt"]


def test_limit_shortens_the_draws_of_the_prior_too(tmp_path):
    assert analysis.AnalysisConfig(tmp_path).n_samples == 10_000
    assert analysis.AnalysisConfig(tmp_path, limit=60).n_samples == 60
    assert analysis.AnalysisConfig(tmp_path, limit=60, n_samples=500).n_samples == 500
    assert analysis.AnalysisConfig(tmp_path, limit=60_000).n_samples == 10_000


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 30])
def test_umap_takes_few_draws(n, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(latents.plots, "scatter", lambda path, panels: drawn.append(panels["draws"]))
    latents.latent_map(tmp_path / "umap.png", model(), {"image": torch.randn(n, C)}, {})
    assert [len(x) for x in drawn[0].values()] == [n, n] and all(x.isfinite().all() for x in drawn[0].values())
    with pytest.raises(InputError, match=r"umap.png needs at least 4 draws, not 2: .* or --no-umap"):
        latents.latent_map(tmp_path / "umap.png", model(), {"image": torch.randn(1, C)}, {})


def test_a_map_colours_draws_by_distribution_and_examples_by_group(tmp_path, monkeypatch):
    """UMAP's place is taken by the draws' first two columns."""
    asked, drawn = [], []

    class FirstColumns:
        def __init__(self, **options):
            asked.append(options)

        def fit_transform(self, x):
            torch.set_num_threads(3)
            return x[:, :2].numpy()

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=FirstColumns, __spec__=object()))
    monkeypatch.setattr(latents.plots, "scatter", lambda path, panels: drawn.append(panels))
    threads, known = torch.get_num_threads(), model()
    z = {"a": torch.randn(1500, C), "b": torch.randn(1200, C)}
    group = torch.arange(1500) % 3 == 0
    latents.latent_map(tmp_path / "umap.png", known, z, {"third": group, "others": ~group})
    panels = drawn[0]
    assert list(panels) == ["draws", "examples"] and list(panels["draws"]) == ["prior", "q(z|a)", "q(z|b)"]
    assert len(panels["draws"]["prior"]) == 1000
    for name in "ab":
        assert panels["draws"][f"q(z|{name})"].equal(z[name][:1000, :2])
    thirds = torch.cat([z[name][:1000, :2][group[:1000]] for name in "ab"])
    assert panels["examples"]["third"].equal(thirds) and len(panels["examples"]["others"]) == 2000 - len(thirds)
    latents.latent_map(tmp_path / "umap.png", known, {"a": torch.randn(10, C)}, {})
    assert list(drawn[1]) == ["draws"] and [options["n_neighbors"] for options in asked] == [40, 19]
    assert torch.get_num_threads() == threads, "UMAP changes them"


def test_labels_above_their_number_are_refused(trained, tmp_path):
    data = digits.by_class(digits.MNIST, digits.CLASSES)._replace(n_values=5)
    options = {"demo": True, "limit": 30, "umap": False, "data_dir": tmp_path, "out_dir": tmp_path}
    with pytest.raises(InputError, match="labels go from 0 to 4, and one is 9: raise n_values of mnist"):
        analysis.analyse(digits.Config(trained("mnist"), **options), data)


def test_examples_that_lack_a_modality_are_left_out(trained, tmp_path, monkeypatch, capsys):
    """MNIST's demo, with every third test image left out: its figures are those of the others."""
    monkeypatch.setattr(digits, "STEPS", 2)
    data, rows = digits.by_class(digits.MNIST, digits.CLASSES), torch.arange(30) % 3 > 0
    lacking = torch.stack([rows, torch.ones(30, dtype=torch.bool)], dim=1)

    def analysed(change):
        def changed(split, config):
            examples = data.load(split, config)
            return change(examples) if split == "test" else examples

        options = {"demo": True, "limit": 30, "n_samples": 40, "umap": False, "data_dir": tmp_path}
        config = digits.Config(trained("mnist"), out_dir=tmp_path, **options)
        return analysis.analyse(config, data._replace(load=changed))

    expected = analysed(lambda examples: examples.take(rows))
    assert analysed(lambda examples: Examples(examples.modalities, mask=lacking)) == expected
    assert capsys.readouterr().out.count("Without 10 test examples that lack a modality.") == 1
