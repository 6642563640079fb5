"""Do the birds and captions that a model of CUB generates fit each other (Shi et al. 2019)?

    python analyse.py trained_models --data-dir data            correlations, and umap.png
    python analyse.py trained_models --demo                     drawn birds, and how often captions say what is right
    python analyse.py trained_models --data-dir data --vocab cub.vocab        the authors' own model
    python analyse.py trained_models --json out.json            and a file

Captions are embedded (`cub.sentences`), images described by features: those of the network of features.py, on images of
64 x 64, real ones too; with --demo colour correlograms. Canonical correlation analysis of the training pairs projects
both, and the mean cosine similarity of the projections of a pair is the "correlation":

    ground truth          test images and their captions: each of the ten captions is a pair
    image -> caption      test images, and for each pair a caption decoded from a sample of q(z|image)
    caption -> image      images decoded from a sample of q(z|caption), and the test captions
    joint                 images and captions decoded from the same sample of the prior; with --mixture N also those
                          from N Gaussians fitted to latents of training pairs, with --latent-prior from its density

The features and the embeddings are not those of the paper, so its figures compare by their ratio to the ground truth.
If all draws of a model are alike, its joint figure is that of one pair, and can have any value.

With --demo a table has the share of right statements in captions. A network reads the attributes of generated images;
the row "ground truth, read" shows how well.

KLs of the posteriors from the prior and from each other follow, and the networks' sizes. Writes umap.png, draws of the
prior and of the posteriors in the plane, kl.png, the KLs by latent, and for photographs cross_generation.png into the
model's samples/.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar

from common import fitted_priors
from common.data import Examples
from common.errors import require, require_positive
from common.execution import devices, processes
from common.models import MultimodalVAE
from cub import demo as drawn
from cub.captions import Vocabulary
from cub.cca import cca
from cub.classifier import read, reader
from cub.data import Birds
from cub.demo import CAPTIONS
from cub.feature_files import network_of
from cub.feature_network import features_of as network_features
from cub.options import PAPER, about
from cub.pairs import BATCH_SIZE, compared, generate
from cub.sentences import fit
from cub.trained_model import TrainedConfig, load_birds, load_trained, network_behind, network_in_words
from reports import tables
from reports.analysis import AnalysisConfig, parameter_counts
from reports.classifiers import judge_file
from reports.latents import MAX_DRAWS, each_modality, kl_plot, kl_table, latent_map
from reports.sampling import Shown, cross_generation, gaussian_mixture
from training import run_from_command_line

import torch
from torch import Tensor, nn

SHOWN = 6  # birds in cross_generation.png
CLASSES = 10  # in umap.png, those with most test birds


@dataclass
class Config(TrainedConfig, AnalysisConfig):
    N_SAMPLES: ClassVar = 1000

    n_samples: int | None = None
    """samples from the prior, for joint generation. None: 1,000; with --limit N at most N"""
    components: int | None = None
    """canonical directions. None: 40, as in the authors' code; 20 with --demo, whose captions vary less"""
    feature_components: int | None = None
    """first reduce image features to this number of principal components of the training features:
    few images overfit 2048 dimensions. None: all features, as in the authors' code"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.components is None:
            self.components = 20 if self.demo else 40

    def check(self) -> None:
        super().check()
        require_positive(self, "components")
        fits = self.feature_components is None or self.feature_components >= self.components
        require(
            fits, f"--feature-components {self.feature_components} must not be below --components {self.components}"
        )
        enough = self.limit is None or self.limit > self.components
        require(enough, f"--limit {self.limit} is too low for --components {self.components}: raise it, or lower these")


def main(config: Config) -> dict[str, dict]:
    """Analyse a model: print its tables, and save its pictures.

    Returns:
        {"correlations": {pair: {"mean", "stderr"}}, "nats": {KL: {"mean", "stderr"}}, "parameters": {network: number}},
        for the demo also {"coherence": {pair: {"right", "named"}}}.
    """
    config.check()
    model, vocabulary = load_trained(config)
    require(
        len(model.modalities) == 2,
        f"{config.model} has the modality {model.modalities[0]} alone, and the analysis compares two: give a model of "
        "--model images or features",
    )
    source = model.modalities[0]
    latents = {"prior": None} | {x: fitted_priors.load(config.model, x, model) for x in config.latent_prior}
    train, test = (load_birds(split, model, vocabulary, config) for split in ("train", "test"))
    test = test[: config.n_test]
    describe = descriptor(source, config)
    x, ids = (train.examples.modalities[name] for name in (source, "caption"))
    sentences = processes.on_first_process(lambda: fit(train.words, ids, vocabulary, config.seed))
    views = describe(x), sentences.embed(ids)
    canonical = processes.on_first_process(lambda: cca(*views, config.components, config.feature_components))
    torch.manual_seed(config.seed)
    processes.seed_each_process()
    if n := config.mixture:
        latents[f"{n} Gaussians"] = gaussian_mixture(model, train.examples, n)
    images, captions = generate(model, test, config.n_samples, latents)
    described = {name: describe(values) for name, values in images.items()}
    embedded = {name: sentences.embed(tokens) for name, tokens in captions.items()}
    pairs = compared(source, latents)
    similarity = {name: canonical.similarity(described[i], embedded[c]) for name, (i, c) in pairs.items()}
    drawn_pairs = {name: similarity.pop(name) for name, (i, _) in pairs.items() if i in latents}
    of_captions = tables.summarise(similarity, test.image_of_each_caption)
    figures = {"correlations": of_captions | tables.summarise(drawn_pairs)}
    if config.demo:
        cache = judge_file(config.cache_dir or config.data_dir, f"reader_of_{source}.pt", config)
        network = reader(source, cache, config.limit)
        looks = {name: read_all(network, x) for name, x in images.items()}
        figures["coherence"] = coherence(source, pairs, looks, captions, test.attributes, vocabulary)
    folder = config.samples_dir
    inside, pictures = latents_and_networks(model, test, vocabulary, folder)
    figures |= inside
    report(figures, network_in_words(network_behind(config)), config, len(test.captions))
    if config.umap and processes.rank() == 0:
        pictures.append(folder / "umap.png")
        draw(pictures[-1], model, test)
    print("", *pictures, sep="\n")
    return figures


def latents_and_networks(
    model: MultimodalVAE, birds: Birds, vocabulary: Vocabulary, folder: Path
) -> tuple[dict[str, dict], list[Path]]:
    """The KLs, "nats", and the networks' sizes, "parameters"; saves kl.png and, for photographs, cross_generation.png.

    Returns:
        {table: {name: figure}}, the files.
    """
    examples, sources = birds.examples.only(model.modalities), each_modality(model)
    kls = kl_plot(folder / "kl.png", model, examples, sources)
    pictures = [folder / "kl.png"] if kls else []
    if "image" in sources and processes.rank() == 0:
        pictures.append(folder / "cross_generation.png")
        shown = Shown(("image",), lambda values: vocabulary.sentences(values["caption"]), sentences=True)
        rows = torch.linspace(0, len(birds.captions) - 1, SHOWN).long()
        cross_generation(pictures[-1], model, examples.take(rows), sources, shown)
    nats = tables.summarise({name: kl.sum(dim=1) for name, kl in kls.items()}, birds.image_of_each_caption)
    return {"nats": nats, "parameters": parameter_counts(model)}, pictures


def descriptor(source: str, config: Config) -> Callable[[Tensor], Tensor]:
    """What turns a modality's values, as they are held, into features (N, 2048)."""
    if source == "feature":
        return lambda x: x
    features_of = drawn.features
    if not config.demo:
        network, size = network_of(config.cache_dir or config.data_dir)
        features_of = partial(network_features, network.to(devices.select(config.cuda)), size=size)

    def described(images: Tensor) -> Tensor:
        def of(rows: Tensor) -> dict[str, Tensor]:
            return {"feature": features_of(images[rows])}

        return processes.map_rows(len(images), BATCH_SIZE, of, "features", " images")["feature"]

    return described


def read_all(network: nn.Module, x: Tensor) -> Tensor:
    """The attributes (N, A) of uint8 images (N, 3, 64, 64) or features (N, 2048)."""
    shown = Examples({"x": x})

    def looks(rows: Tensor) -> dict[str, Tensor]:
        return {"looks": read(network, shown[rows].modalities["x"])}

    return processes.map_rows(len(shown), BATCH_SIZE, looks, "attributes")["looks"]


def coherence(
    source: str,
    pairs: Mapping[str, tuple[str, str]],
    looks: Mapping[str, Tensor],
    captions: Mapping[str, Tensor],
    attributes: Tensor,
    vocabulary: Vocabulary,
) -> dict[str, dict[str, float | None]]:
    """The share of right attributes among those that captions name, and their mean number.

    Args:
        pairs: what is compared, see `cub.pairs.compared`.
        looks: attributes (N, A) that were read off the images of `generate`.
        captions: those of `generate`.
        attributes: (N, A), the true ones of the given birds.
    """
    texts = {name: vocabulary.sentences(ids) for name, ids in captions.items()}
    said = {
        "ground truth": (texts["given"], attributes),
        "ground truth, read": (texts["given"], looks["given"]),
        "captions of other birds": (texts["given"], attributes.roll(1, dims=0)),
    }
    said |= {name: (texts[c], looks[i]) for name, (i, c) in pairs.items() if name != "ground truth"}
    said[f"{source} -> caption"] = texts["decoded"], attributes
    agreements = {name: drawn.agreement(*pair) for name, pair in said.items()}
    return {
        name: {"right": None if math.isnan(share) else share, "named": n} for name, (share, n) in agreements.items()
    }


@torch.no_grad()
def draw(path: Path, model: MultimodalVAE, birds: Birds) -> None:
    """Save the map of latents, coloured by class."""
    n = len(birds.captions)
    rows = torch.linspace(0, n - 1, min(MAX_DRAWS, n)).long()  # evenly, since birds are sorted by class
    batch = birds.examples.only(model.modalities)[rows].modalities
    device, classes = model.device, birds.classes[rows // CAPTIONS]
    z = {name: model.posterior({name: x.to(device)}).sample() for name, x in batch.items()}
    commonest = birds.classes.bincount().argsort(descending=True, stable=True)[:CLASSES].tolist()
    latent_map(path, model, z, {birds.class_names[c]: classes == c for c in commonest})


def report(figures: dict[str, dict], features: str, config: Config, n: int) -> None:
    """Report the correlations, and of the demo the coherence, each in a table.

    Args:
        features: what makes the features of images.
    """
    title, data = tables.data_scored(config, "cub", about(config), n, "test pair")
    shown = [correlation_table(figures["correlations"], features, config, title)]
    if "coherence" in figures:
        head = ("what captions say of birds", "right, %", "attributes a caption")
        rows = [(name, tables.percent(x["right"]), f"{x['named']:.2f}") for name, x in figures["coherence"].items()]
        shown.append(tables.Table("coherence", figures["coherence"], head, rows))
    shown += [kl_table(figures["nats"], "cub"), tables.parameter_table(figures["parameters"], "cub")]
    chosen = ("n_samples", "seed", "components", "feature_components")
    settings = {"n_examples": n, "features": features} | {name: getattr(config, name) for name in chosen}
    tables.report(config, "cub", shown, settings, data)


def correlation_table(correlations: tables.Estimates, about: str, config: Config, title: str) -> tables.Table:
    """The table of correlations beside the paper's, each also as a share of its ground truth."""
    truth, papers_truth = correlations["ground truth"]["mean"], PAPER["ground truth"]
    rows = []
    for (name, value), paper in zip_longest(correlations.items(), PAPER.values()):
        mean, error = (tables.decimals(x, 3) for x in value.values())
        share = f"{tables.percent(value['mean'] / truth)} %" if truth > 0 else "-"
        published = (f"{paper:.3f}", f"{tables.percent(paper / papers_truth)} %") if paper else ("", "")
        rows.append((name, mean, error, share, *published))
    reduced = config.feature_components and f", {config.feature_components} principal components"
    notes = (
        f"features: {about}{reduced or ''}; {config.components} canonical directions\n"
        "† Shi et al. 2019, with ImageNet's features of all of CUB; recalled, not re-checked against the paper, except "
        "the joint figure"
    )
    scored = f"{title}, {tables.count(config.n_samples, 'draw')}"
    head = (scored, "correlation", "standard error", "share of ground truth", "paper †", "share of the paper's")
    figures = {f"correlation, {name}": x for name, x in correlations.items()}
    return tables.Table("estimates", figures, head, rows, notes=notes)


if __name__ == "__main__":
    run_from_command_line(main, Config, __doc__)
