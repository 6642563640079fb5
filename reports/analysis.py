"""What analyse.py computes in every folder: coherence, what latents hold, KLs, and pictures."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from common import distributed
from common.checkpoints import load_config, load_model
from common.data.batches import Batch, Examples
from common.data.splits import only_complete
from common.errors import require, require_positive
from common.model_data import check_values
from common.multimodal_vae import MultimodalVAE
from common.priors import ClusteredPrior
from common.variational_posteriors.private_latents import latent_parts
from reports import sampling, tables, umap
from reports.analysis_tables import Figures, few_training_examples, figure_tables, left_out, weak_judges
from reports.encoded import Encoded, encode
from reports.frechet_distances import inception_features
from reports.latent_clusters import cluster_accuracies, clustered_priors
from reports.latents import each_modality, kl_plot, most_used
from reports.metrics import Judge, latent_accuracy, sampled_latents
from reports.options import PriorSamplesConfig, ScoresConfig
from reports.reconstructions import ssim
from reports.right_labels import by_label, coherence, of_generated, read_right, shares_of
from reports.sampling import MAX_FITTED, Shown, gaussian_mixture
from reports.subset_metrics import SubsetScores, scores_by_subset
from training import devices, runs

MIN_FOR_MAP = 20  # test examples
ROWS = 12  # latents in the traversals
COLUMNS = 10  # examples in the picture of cross-generation
MANY_IMAGES = 10**7  # hours of a CPU


@dataclass
class AnalysisConfig(PriorSamplesConfig, ScoresConfig):
    """The options of all analyse.py."""

    N_SAMPLES: ClassVar[int] = 10_000

    n_samples: int | None = None
    """samples from the prior, for joint coherence. Default: 10,000, as in MMVAE's paper; with --limit N at most N"""
    n_test: int | None = None
    """score only the first N test examples; unlike --limit, this leaves all training examples"""
    mixture: int = 0
    """also score draws from a mixture of this number of Gaussians, fitted to latents of training examples, in place of
    the prior"""
    umap: bool = True
    """draw umap.png (takes about half a minute)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_samples is None:
            self.n_samples = min(self.N_SAMPLES, self.limit or self.N_SAMPLES)

    def check(self) -> None:
        super().check()
        require_positive(self, "n_test")
        require(
            not self.umap or min(n for n in (self.limit, self.n_test, MIN_FOR_MAP) if n is not None) >= MIN_FOR_MAP,
            f"umap.png needs {MIN_FOR_MAP} test examples: raise --limit or --n-test, or give --no-umap",
        )
        if self.umap:
            umap.require_installed()


class Labelled(NamedTuple):
    """A labelled dataset and how to analyse it.

    name: the experiment's folder.
    load: split ("train", "test"), config -> examples.
    labels: config, split, examples -> (N, G) int64, what they show: a class, characters, attributes.
    names: the names of the G labels.
    label: what a label is, for the table by label.
    n_values: labels go from 0 to n_values - 1.
    judges: config, training examples, their labels, model -> {target: Judge}, for what the model decodes.
    groups: labels (N, G) -> {name: (N,) bool}, the groups of examples that umap.png colours.
    shown: how pictures show values.
    sources: model -> {name: modalities given}.
    all_right: name of the G labels together, such as "string": report how often all are right; None: do not.
    columns: {figure: title} of the table by label; by default all, and none for a single label.
    more: config, model, judges, the test examples' labels -> more columns of that table, {title: (G,)}.
    about: config -> what the tables say about the data, {name: value}.
    given_all: whether to measure q(z|X): reconstructions of the images shown, and clusters of its means.
    by_subset: whether to score what is generated given each subset of the modalities
        (`reports.subset_metrics`); needs given_all.
    inception: file of Inception-v3's weights, for FID by size; None leaves FID out.
    must_match: config -> options that the model must have been trained with, {name: value}.
    samplers: model, training and test examples -> further sources of `reports.metrics.cross_coherence`.
    """

    name: str
    load: Callable[[str, Any], Examples]
    labels: Callable[[Any, str, Examples], Tensor]
    names: Sequence[str]
    n_values: int
    judges: Callable[[Any, Examples, Tensor, MultimodalVAE], dict[str, Judge]]
    groups: Callable[[Tensor], Mapping[str, Tensor]]
    shown: Shown
    sources: Callable[[MultimodalVAE], dict[str, Sequence[str]]] = each_modality
    label: str = "attribute"
    all_right: str | None = None
    columns: Mapping[str, str] | None = None
    more: Callable[..., dict[str, Tensor]] = lambda *_: {}
    about: Callable[[Any], dict[str, str]] = lambda config: {}
    given_all: bool = False
    by_subset: bool = False
    inception: Path | None = None
    must_match: Callable[[Any], dict[str, Any]] = lambda config: {}
    samplers: Callable[[MultimodalVAE, Examples, Examples], dict[str, Callable[[Batch], Tensor]]] = lambda *_: {}


def analyse(config: AnalysisConfig, data: Labelled) -> dict[str, float]:
    """Analyse a model, print its tables and save its pictures; returns the means of all figures, {name: mean}.

    Raises:
        InputError: options, model or data that cannot be used.
    """
    config.check()
    runs.check_same(data.must_match(config), config.model)
    analysis = Analysis(config, data)
    figures = analysis.figures()
    n = len(analysis.test)
    head, about = tables.data_scored(config, data.name, data.about(config), n)
    notes = (
        tables.other_data(config),
        weak_judges(figures.shares),
        few_training_examples(len(analysis.train)),
        left_out(analysis.n_incomplete),
    )
    drawn = {"n_samples": config.n_samples} if "coherence, joint" in figures.shares else {}
    settings = {"n_examples": n, **drawn, "seed": config.seed}
    shown = figure_tables(figures, data.name, head, data.names, data.label, " ".join(filter(None, notes)))
    tables.report(config, data.name, shown, settings, about)
    if distributed.rank() == 0:
        print("", *analysis.draw(), sep="\n")
    means = {name: x["mean"] for name, x in (figures.shares | figures.ssim | figures.nats).items()}
    return means | {f"{name}, {n} given": x for n, scores in figures.by_size.items() for name, x in scores.items()}


class Analysis:
    """A model, the labelled examples that it is scored on, and their judges; random draws begin at config.seed.

    Examples that lack a modality are left out, `n_incomplete` of the test examples.

    Raises:
        InputError: a model or data that cannot be used.
    """

    def __init__(self, config: AnalysisConfig, data: Labelled) -> None:
        self.config, self.data = config, data
        device = devices.select(config.cuda)
        self.model = load_model(config.model, data.name).to(device)
        self.inception = inception_features(data.inception, device) if data.inception else None
        splits = {split: data.load(split, config) for split in ("train", "test")}
        splits["test"] = splits["test"].take(slice(config.n_test))
        labels = {split: data.labels(config, split, examples).cpu() for split, examples in splits.items()}
        complete = {split: only_complete(examples) for split, examples in splits.items()}
        self.n_incomplete = len(splits["test"]) - len(complete["test"][0])
        splits = {split: examples.to(device) for split, (examples, _) in complete.items()}
        self.labels = {split: labels[split][rows] for split, (_, rows) in complete.items()}
        largest, label = max(int(x.max()) for x in self.labels.values()), data.n_values - 1
        require(largest <= label, f"labels go from 0 to {label}, and one is {largest}: raise n_values of {data.name}")
        for examples in splits.values():
            check_values(examples, self.model)
        self.judges = data.judges(config, splits["train"], self.labels["train"], self.model)
        require(
            not config.mixture or len(of_generated(self.model, self.judges)) > 1,
            "--mixture measures how often two modalities of a draw agree: this model generates fewer, leave it out",
        )
        self.sources = data.sources(self.model)
        self.test_with_labels = splits["test"]
        self.train, self.test = (examples.only(self.model.modalities) for examples in splits.values())
        self.folder = config.samples_dir
        torch.manual_seed(config.seed)
        distributed.seed_each_process()

    def figures(self) -> Figures:
        """Compute all scores, and save kl.png."""
        encoded = self._encoded() if self.data.given_all else ()
        beta = load_config(self.config.model).get("beta", 1.0)
        priors = clustered_priors(encoded[0], beta) if encoded and self.model.prior.is_mixture else {}
        right = self._right(priors)
        shares = shares_of(right, self.data.all_right)
        shares |= cluster_accuracies(*encoded, priors) if encoded else {}
        similarities = ssim(encoded[1], self.data.shown.images) if encoded else {}
        subsets = self._by_subset(*encoded) if self.data.by_subset else {}
        columns = by_label(right, self.data.columns)
        columns |= self.data.more(self.config, self.model, self.judges, self.labels["test"])
        nats = {name: kl.sum(dim=1) for name, kl in self.kls.items()}
        return Figures(
            tables.summarise(shares),
            columns,
            tables.summarise(nats),
            tables.summarise({f"SSIM, {pair}": x for pair, x in similarities.items()}),
            subsets,
            parameter_counts(self.model),
        )

    def _by_subset(self, train: Encoded, test: Encoded) -> dict[tuple[str, ...], SubsetScores]:
        n_images = 2 ** len(self.model.modalities) * len(self.judges) * len(test)
        if n_images > MANY_IMAGES and distributed.rank() == 0:
            remedy = "--n-test N scores fewer examples, --no-by-size leaves it out"
            print(f"warning: --by-size decodes {n_images:,} images: {remedy}", file=sys.stderr)
        return scores_by_subset(train, test, self.judges, self.inception)

    @cached_property
    def z(self) -> dict[str, Tensor]:
        """A sample of q(z|x_source) for each test example, {source: (N, D)}."""
        return sampled_latents(self.model, self.test, self.sources)

    @cached_property
    def kls(self) -> dict[str, Tensor]:
        """The KLs of the test examples, {name: (N, D)}; saves their picture, kl.png."""
        return kl_plot(self.folder / "kl.png", self.model, self.test, self.sources)

    def draw(self) -> list[Path]:
        """Save cross_generation.png, the traversals and umap.png; returns the files, kl.png first."""
        pictures, shown = [self.folder / "kl.png"] if self.kls else [], self.data.shown
        if shown.rows(self.test.take(slice(1))[:].modalities):
            pictures.append(self.folder / "cross_generation.png")
            examples = self.test.take(slice(COLUMNS))
            sampling.cross_generation(pictures[-1], self.model, examples, self.sources, shown)
            if self.model.variational_posterior.on_spheres:
                print("\nno traversals: a latent alone cannot move on its sphere")
            else:
                latents = most_used(self.kls, ROWS).tolist() if self.kls else None
                pictures += sampling.traversals(self.folder / "traversal", self.model, shown, latents)
        if self.config.umap:
            pictures.append(self.folder / "umap.png")
            umap.latents(pictures[-1], self.model, self.z, self.data.groups(self.labels["test"]))
        return pictures

    def _encoded(self) -> tuple[Encoded, Encoded]:
        """The first MAX_FITTED training examples and all test examples, encoded."""
        few = self.train.take(slice(MAX_FITTED))
        return (
            encode(self.model, few, self.labels["train"][:MAX_FITTED]),
            encode(self.model, self.test, self.labels["test"]),
        )

    def _right(self, priors: Mapping[str, ClusteredPrior]) -> dict[str, Tensor]:
        """Which labels are right: those of judges, samples and latents, {name: (N, G) bool}."""
        right = {
            f"classifier, {name}": read_right(judge, self.test_with_labels, self.labels["test"])
            for name, judge in self.judges.items()
            if judge.trained
        }
        model, labels, n = self.model, self.labels["test"], self.config.mixture
        samplers = self.data.samplers(model, self.train, self.test)
        mixtures = {f"{n} Gaussians": gaussian_mixture(model, self.train, n)} if n else {}
        mixtures |= {name: prior() for name, prior in priors.items() if prior is not model.prior}
        right |= coherence(
            model, self.test, labels, self.judges, self.sources, self.config.n_samples, samplers, mixtures
        )
        return right | self._predicted_from_latents()

    def _predicted_from_latents(self) -> dict[str, Tensor]:
        """Which labels a linear classifier predicts rightly from one z of q(z|x_source): {name: (N, G) bool}.

        Shared and private latents have classifiers of their own.
        """
        device = self.model.device
        train_labels, test_labels = self.labels["train"].to(device), self.labels["test"].to(device)
        right, of_test = {}, self.z
        for name, z in sampled_latents(self.model, self.train, self.sources).items():
            for which, part in latent_parts(self.model.n_shared).items():
                pairs = (z[:, part], train_labels), (of_test[name][:, part], test_labels)
                right[f"latent accuracy{which}, {name}"] = distributed.on_first_process(
                    lambda pairs=pairs: latent_accuracy(*pairs, self.data.n_values).cpu()
                )
        return right


def parameter_counts(model: MultimodalVAE) -> dict[str, int]:
    """The number of trained parameters of each network, of each other piece, and in total."""
    sizes = {}
    for piece, module in model.named_children():
        networks = module.items() if piece in ("encoder", "decoder") else [("", module)]
        for key, network in networks:
            n = sum(x.numel() for x in network.parameters() if x.requires_grad)
            if n:
                sizes[f"{piece} {key}".strip().replace("_", " ")] = n
    return sizes | {"all": sum(x.numel() for x in model.parameters() if x.requires_grad)}
