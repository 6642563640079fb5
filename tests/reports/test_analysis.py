"""The analysis that all folders share, on models whose figures are known; each folder of mnist's kind, end to end."""

import json
import sys
from importlib import import_module
from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import cross_entropy

from common.data import Examples
from common.errors import InputError
from mnist import analyse as digits
from mnist.model import build
from reports import analysis, classifiers, latents, tables
from reports.classifiers import judge_file
from reports.sampling import STEPS, Shown, cross_generation, traversals
from tests.helpers.coherence import C, model
from tests.helpers.demo_runs import TINY
from tests.helpers.scripts import call, run_script


def test_parameters_are_counted_by_network():
    assert analysis.parameter_counts(model()) == {"encoder a": 1, "encoder b": 1, "all": 2}


def test_judges_that_err_and_few_training_examples_are_noted():
    shares = {"classifier, a": 0.16, "classifier, b": 0.99, "coherence, joint": 0.1}
    shares = {name: {"mean": x, "stderr": 0.01} for name, x in shares.items()}
    weak, few, left_out = tables.notes_on(shares, 999, 2)
    assert weak == "Coherence says little where its judge errs on the test examples: classifier, a (16.0 %)."
    assert "on 999 training examples" in few and left_out == "Without 2 test examples that lack a modality."
    assert tables.notes_on({"classifier, b": shares["classifier, b"]}, 1000, 0) == []


def test_divergences_have_their_errors_and_j_is_explained():
    table = latents.kl_table({"J(q(z|a), q(z|b))": {"mean": 1.234, "stderr": 0.056}}, "known")
    assert "| J(q(z\\|a), q(z\\|b)) | 1.23 | 0.06 |" in str(table) and "both directions" in str(table)
    assert "both directions" not in str(latents.kl_table({}, "known"))


def test_latents_of_a_picture_are_those_that_are_used():
    kls = {
        "KL(q(z|a) || p(z))": torch.arange(40.0).expand(3, -1),
        "J(q(z|a), q(z|b))": -torch.arange(40.0).expand(3, -1),
    }
    assert latents.most_used(kls, 20).tolist() == list(range(20, 40))
    assert latents.most_used({"KL": torch.zeros(2, 3)}, 20).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("n", "label"), [(3, "latent, the 2 of 3 that are used most"), (2, "latent")])
def test_boxes_say_which_latents_they_show(monkeypatch, n, label):
    drawn = []
    monkeypatch.setattr(latents, "BOXES", 2)
    monkeypatch.setattr(latents.plots, "boxes", lambda *args: drawn.append(args))
    mvae = build(SimpleNamespace(n_latents=n, model="mvae", posterior="gaussian"))
    test = Examples({"image": torch.rand(4, 1, 28, 28), "text": torch.arange(4)})
    kls = latents.kl_plot("kl.png", mvae, test, latents.each_modality(mvae))
    [(path, panels, axes, names)] = drawn
    assert path == "kl.png" and axes == (label, "nats") and len(names) == 2
    for name, panel in panels.items():
        torch.testing.assert_close(panel, kls[name][:, names])


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


@pytest.mark.parametrize(("size", "labels"), [(28, 1), (50, 4)])
def test_the_image_classifiers_sizes(size, labels):
    network = classifiers.image_classifier(1, size, labels, 11)
    assert network(torch.rand(2, 1, size, size)).shape == (2, labels, 11)


class Recorder:
    def __init__(self, monkeypatch):
        self.grids = []
        for name in ("image_grid", "captioned"):
            monkeypatch.setattr(f"reports.plots.{name}", lambda *args: self.grids.append(args))


@pytest.fixture
def mvae(tmp_path):
    import mnist.train

    call(mnist.train, "--demo", *TINY, "--save-dir", tmp_path / "run")
    return tmp_path / "run"


def test_pictures_show_each_pair_and_move_each_latent(mvae, monkeypatch, tmp_path):
    from common.checkpoints import load_model
    from mnist.data import MNIST

    trained, drawn, seen = load_model(mvae), Recorder(monkeypatch), []
    shown = Shown(("image",), lambda values: MNIST.names(values["text"]))
    test = Examples({"image": torch.rand(3, 1, 28, 28), "text": torch.tensor([1, 2, 3])})
    cross_generation(tmp_path / "x.png", trained, test, {"image": ("image",), "text": ("text",)}, shown)
    ((_, images, labels, captions, _),) = drawn.grids
    assert labels == ["image, given", "image -> image", "text -> image"] and images.shape == (3, 3, 3, 28, 28)
    assert images[0, :, :1].equal(test.modalities["image"]) and list(captions[0]) == ["1", "2", "3"]

    def decode(z, *args, original=trained.decode):
        seen.append(z)
        return original(z, *args)

    monkeypatch.setattr(trained, "decode", decode)
    assert traversals(tmp_path / "along", trained, shown, [4, 2]) == [tmp_path / "along_image.png"]
    z, prior = seen[0].view(2, STEPS, -1), trained.prior()
    for row, d in enumerate((4, 2)):
        offsets = (z[row] - prior.mean) / prior.stddev
        assert offsets[[0, -1], d].tolist() == pytest.approx([-3, 3])
        assert offsets.abs().sum(dim=0).nonzero().flatten().tolist() == [d], "the others stay at the mean"


@pytest.mark.slow
def test_a_mixture_needs_two_modalities_that_are_generated(tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "STEPS", 2)
    call(import_module("mnist.train"), "--demo", *TINY, "--model", "cvae", "--save-dir", tmp_path)
    with pytest.raises(InputError, match="this model generates fewer, leave it out"):
        call(digits, tmp_path, "--demo", "--limit", 30, "--mixture", 2, "--no-umap", "--data-dir", tmp_path)
    assert not [*tmp_path.glob("*classifier*")], "no judge is trained before"


@pytest.mark.parametrize(
    ("folder", "options"),
    [
        ("mnist", ()),
        ("mnist", ("--model", "cvae")),
        pytest.param("mnist", ("--model", "vae"), marks=pytest.mark.slow),
        pytest.param("mnist", ("--model", "bivcca", "--posterior", "vmf"), marks=pytest.mark.slow),
        pytest.param("fashionmnist", ("--model", "jmvae"), marks=pytest.mark.slow),
        ("multimnist", ()),
        pytest.param("multimnist", ("--model", "mopoe"), marks=pytest.mark.slow),
    ],
)
def test_folders_of_images_and_texts(tmp_path, monkeypatch, folder, options):
    train, analyse = (import_module(f"{folder}.{script}") for script in ("train", "analyse"))
    call(train, "--demo", *TINY, "--valid", 0, *options, "--save-dir", tmp_path)
    monkeypatch.setattr(digits, "STEPS", 2)
    monkeypatch.setattr(classifiers, "MAX_EPOCHS", 1)
    kls, maps = [], []
    monkeypatch.setattr(analysis, "kl_plot", lambda *args, plot=analysis.kl_plot: kls.append(plot(*args)) or kls[0])
    monkeypatch.setattr(analysis, "latent_map", lambda path, *args: maps.append((path.name, [*args[-1]])))
    out = tmp_path / "out.json"
    args = ("--demo", "--limit", 30, "--n-samples", 40, "--json", out, "--out-dir", tmp_path / "drawn")
    args += ("--data-dir", tmp_path)
    found = call(analyse, tmp_path, *args)
    content = json.loads(out.read_text())
    estimates = content["estimates"]
    assert {name: x["mean"] for name, x in estimates.items()} == found
    assert content["n_examples"] == 30 and content["data"] == "demo"
    for name, kl in kls[0].items():
        x = kl.sum(dim=1)
        known = {"mean": x.mean().item(), "stderr": x.std().item() / 30**0.5}
        assert estimates.pop(name) == pytest.approx(known, rel=1e-4)
    p = estimates["classifier, image"]["mean"]
    if folder != "multimnist":  # four characters of an image
        assert estimates["classifier, image"]["stderr"] == pytest.approx((p * (1 - p) / 29) ** 0.5)
    ((picture, groups),) = maps
    assert picture == "umap.png" and len(groups) > 1
    sources = {"cvae": ("text",), "vae": ("image",)}.get(dict([options[:2]]).get("--model") if options else "")
    targets = ("image",) if sources else ("image", "text")
    sources = sources or ("image", "text")
    expected = {"classifier, image"} | {f"latent accuracy, {name}" for name in sources}
    expected |= {f"coherence, {a} -> {b}" for a in sources for b in targets}
    expected |= {"coherence, joint"} if len(targets) > 1 else set()
    if folder == "mnist" and len(targets) > 1:  # of the others' first 30, the training examples lack a label
        expected |= {f"coherence, text, aggregate -> {b}" for b in targets}
    if folder == "multimnist":
        expected |= {f"{name}, string" for name in expected}
        rows = content["attributes"]
        assert list(rows) == [f"character {i}" for i in (1, 2, 3, 4)]
        mean = sum(row["coherence, text -> image"] for row in rows.values()) / 4
        assert found["coherence, text -> image"] == pytest.approx(mean)
    assert set(estimates) == expected
    assert content["parameters"]["all"] == sum(n for name, n in content["parameters"].items() if name != "all")
    pictures = {path.name for path in (tmp_path / "drawn").glob("*.png")}
    assert {"kl.png", "cross_generation.png"} <= pictures
    along = "traversal_image.png" in pictures
    assert along == ("cvae" not in options and "vmf" not in options)


@pytest.mark.slow
def test_numbers_are_judged_by_a_dictionary(tmp_path):
    import translation.analyse
    import translation.train
    from translation.data import CODES

    english, french = ["two thousand and seventeen", "zero", "two two"], ["deux mille dix sept", "zéro", ""]
    for language, texts in (("english", english), ("french", french)):
        assert translation.analyse.digits(texts, language).tolist() == [[2, 0, 1, 7], [0, 0, 0, 0], [-1, -1, -1, -1]]
    call(translation.train, *TINY, "--save-dir", tmp_path)
    args = ("--limit", 20, "--n-samples", 20, "--no-umap", "--out-dir", tmp_path / "drawn")
    found = call(translation.analyse, tmp_path, *args)
    assert not any(name.startswith("classifier") for name in found), "a dictionary does not err"
    assert {f"coherence, {a} -> {b}" for a in CODES for b in CODES} < set(found)
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["kl.png"]


def test_judges_are_kept_in_the_data_dir(tmp_path):
    def file(**options):
        return judge_file(tmp_path, "x.pt", analysis.AnalysisConfig(tmp_path / "run", **options))

    assert file() == tmp_path / "x.pt" and file(demo=True) == tmp_path / "demo_x.pt"
    assert file(limit=50) == tmp_path / "x_first_50.pt" and file(limit=60) == tmp_path / "x_first_60.pt"
    assert file(demo=True, limit=50) == tmp_path / "demo_x_first_50.pt"
    assert file(n_test=50) == file(), "which leaves judges all training examples"


@pytest.mark.parametrize(("folder", "makes"), [("celeba", "classifier"), ("polymnist", "judge")])
def test_judges_are_kept_in_the_cache_dir_of_folders_that_have_one(tmp_path, monkeypatch, folder, makes):
    analyse, kept = import_module(f"{folder}.analyse"), []
    monkeypatch.setattr(analyse, makes, lambda *args: kept.append(args[-1]))
    model = SimpleNamespace(modalities=("image",), modelled=("image",))
    for options in ({"cache_dir": tmp_path / "cache"}, {"data_dir": tmp_path / "data"}):
        analyse.judges(analyse.Config(tmp_path / "run", **options), None, None, model)
    assert [file.parent for file in kept] == [tmp_path / "cache", tmp_path / "data"]


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


def test_a_judge_of_few_examples_does_not_replace_that_of_all(mvae, tmp_path, monkeypatch):
    monkeypatch.setattr(digits, "STEPS", 2)
    seen = []
    monkeypatch.setattr(digits, "judge", lambda build, train, *args: seen.append((len(train), args[-1].name)) or 1 / 0)
    for limit in ((), ("--limit", 30)):
        with pytest.raises(ZeroDivisionError):
            call(digits, mvae, "--demo", *limit, "--data-dir", tmp_path)
    assert seen == [(1500, "demo_mnist_classifier.pt"), (30, "demo_mnist_classifier_first_30.pt")]


def test_too_few_examples_for_a_map_are_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit_:
        run_script(digits, [str(tmp_path), "--limit", "19"])
    assert exit_.value.code == 2
    assert "umap.png needs 20 test examples: raise --limit or --n-test, or give --no-umap" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("n", [2, 30])
def test_a_map_of_few_draws(n, tmp_path):
    latents.latent_map(tmp_path / "umap.png", model(), {"image": torch.randn(n, C)}, {})
    assert (tmp_path / "umap.png").exists()


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


def test_a_map_of_too_few_draws_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"umap.png needs at least 4 draws, not 2: .* or --no-umap"):
        latents.latent_map(tmp_path / "umap.png", model(), {"image": torch.randn(1, C)}, {})


def test_labels_above_their_number_are_refused(tmp_path):
    call(import_module("mnist.train"), "--demo", *TINY, "--valid", 0, "--save-dir", tmp_path)
    data = digits.by_class(digits.MNIST, digits.CLASSES)._replace(n_values=5)
    with pytest.raises(InputError, match="labels go from 0 to 4, and one is 9: raise n_values of mnist"):
        analysis.analyse(digits.Config(tmp_path, demo=True, limit=30, umap=False, data_dir=tmp_path), data)


def test_examples_that_lack_a_modality_are_left_out(tmp_path, monkeypatch, capsys):
    """MNIST's demo, with every third test image left out: its figures are those of the others."""
    call(import_module("mnist.train"), "--demo", *TINY, "--valid", 0, "--save-dir", tmp_path)
    monkeypatch.setattr(digits, "STEPS", 2)
    data, rows = digits.by_class(digits.MNIST, digits.CLASSES), torch.arange(30) % 3 > 0
    lacking = torch.stack([rows, torch.ones(30, dtype=torch.bool)], dim=1)

    def analysed(change):
        def changed(split, config):
            examples = data.load(split, config)
            return change(examples) if split == "test" else examples

        config = digits.Config(tmp_path, demo=True, limit=30, n_samples=40, umap=False, data_dir=tmp_path)
        return analysis.analyse(config, data._replace(load=changed))

    expected = analysed(lambda examples: examples.take(rows))
    assert analysed(lambda examples: Examples(examples.modalities, mask=lacking)) == expected
    assert capsys.readouterr().out.count("Without 10 test examples that lack a modality.") == 1
