"""What analyse.py computes in every folder: coherence, what latents hold, KLs, and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from common import fitted_priors
from common.checkpoints import load_config
from common.data.batches import Batch, Examples
from common.data.splits import only_complete
from common.errors import option, require, require_positive
from common.execution import processes
from common.latent_priors import Kind
from common.model_data import check_values
from common.multimodal_vae import MultimodalVAE
from common.priors import ClusteredPrior
from common.private_latents import latent_parts
from reports import sampling, tables
from reports.latents import (
    cluster_accuracies,
    each_modality,
    kl_plot,
    kl_table,
    latent_map,
    most_used,
    pruned,
    require_umap,
    shared_means,
)
from reports.metrics import Judge, cross_coherence, joint_coherence, latent_accuracy, read_right, sampled_latents
from reports.options import PriorSamplesConfig, ScoresConfig
from reports.sampling import MAX_FITTED, Shown, gaussian_mixture
from reports.subsets import Posteriors, by_size_table, scores_by_size, scores_by_subset, ssim
from reports.tables import Table, decimals, estimate_table, parameter_table, percent
from training import runs

import torch
from torch import Tensor

MIN_FOR_MAP = 20  # test examples
ROWS = 12  # latents in the traversals
COLUMNS = 10  # examples in the picture of cross-generation


@dataclass
class AnalysisConfig(PriorSamplesConfig, ScoresConfig):
    """The options of all analyse.py."""

    N_SAMPLES: ClassVar[int] = 10_000
    STAND_INS: ClassVar = ()  # all are scored beside the prior

    n_samples: int | None = None
    """samples from the prior, for joint coherence. None: 10,000, as in MMVAE's paper; with --limit N at most N"""
    n_test: int | None = None
    """score only the first N test examples; unlike --limit, this leaves all training examples"""
    mixture: int = 0
    """also score draws from a mixture of this number of Gaussians, fitted to training latents, in place of the prior"""
    latent_prior: tuple[Kind, ...] = ()
    """also score draws from densities that `python -m tools.latent_prior` fitted to the model's latents"""
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
            require_umap()


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
        (`reports.subsets`); needs given_all.
    inception: images (N, 3, H, W) -> features (N, F), for FID by size; None leaves FID out.
    must_match: config -> options that the model must have been trained with, {name: value}.
    samplers: model, training and test examples -> further sources of `reports.metrics.cross_coherence`.
    tables: the posteriors of training and test examples, {split: these examples with all items} -> further tables;
        needs given_all.
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
    inception: Callable[[Tensor], Tensor] | None = None
    must_match: Callable[[Any], dict[str, Any]] = lambda config: {}
    samplers: Callable[[MultimodalVAE, Examples, Examples], dict[str, Callable[[Batch], Tensor]]] = lambda *_: {}
    tables: Callable[[Posteriors, Posteriors, Mapping[str, Examples]], list[Table]] = lambda *_: []


def analyse(config: AnalysisConfig, data: Labelled) -> dict[str, float]:
    """Analyse a model, print its tables and save its pictures; returns the means of all figures, {name: mean}.

    Raises:
        InputError: options, model or data that cannot be used.
    """
    config.check()
    runs.check_same(data.must_match(config), config.model)
    analysis = Analysis(config, data)
    n = len(analysis.test)
    head, about = tables.data_scored(config, data.name, data.about(config), n)
    shown = analysis.figures(head)
    drawn = {"n_samples": config.n_samples} if len(analysis.generated) > 1 else {}
    tables.report(config, data.name, shown, {"n_examples": n, **drawn, "seed": config.seed}, about)
    if processes.rank() == 0:
        print("", *analysis.draw(), sep="\n")
    means = {}
    for table in shown:
        if table.key == "estimates":
            means |= {name: x["mean"] for name, x in table.figures.items()}
        elif table.key == "by_size":
            means |= {f"{name}, {size} given": x for size, row in table.figures.items() for name, x in row.items()}
    return means


class Analysis:
    """A model, the labelled examples that it is scored on, and their judges; random draws begin at config.seed.

    Attributes:
        n_incomplete: test examples that were left out, since they lack a modality.
        generated: the judges of what the model generates from z alone.
        stand_ins: the densities of --latent-prior, {end of a row's name: density}.
        z, kls: once `figures` was called, a sample of q(z|x_source) for each test example, {source: (N, D)}, and the
            KLs of the test examples, {name: (N, D)}.

    Raises:
        InputError: a model or data that cannot be used.
    """

    def __init__(self, config: AnalysisConfig, data: Labelled) -> None:
        self.config, self.data = config, data
        self.model = config.trained_model(data.name)
        fewer = "measures how often two modalities of a draw agree: this model generates fewer, leave it out"
        for name in ("mixture", "latent_prior"):
            require(not getattr(config, name) or len(self.model.modelled) > 1, f"{option(name)} {fewer}")
        fitted = {kind: fitted_priors.load(config.model, kind, self.model) for kind in config.latent_prior}
        self.stand_ins = {f", z from {kind}": density for kind, density in fitted.items()}
        splits = {split: data.load(split, config) for split in ("train", "test")}
        splits["test"] = splits["test"].take(slice(config.n_test))
        labels = {split: data.labels(config, split, examples).cpu() for split, examples in splits.items()}
        complete = {split: only_complete(examples) for split, examples in splits.items()}
        self.n_incomplete = len(splits["test"]) - len(complete["test"][0])
        splits = {split: examples.to(self.model.device) for split, (examples, _) in complete.items()}
        self.labels = {split: labels[split][rows] for split, (_, rows) in complete.items()}
        largest, label = max(int(x.max()) for x in self.labels.values()), data.n_values - 1
        require(largest <= label, f"labels go from 0 to {label}, and one is {largest}: raise n_values of {data.name}")
        for examples in splits.values():
            check_values(examples, self.model)
        self.judges = data.judges(config, splits["train"], self.labels["train"], self.model)
        self.generated = {name: judge for name, judge in self.judges.items() if not judge.conditions(self.model)}
        self.sources = data.sources(self.model)
        self.with_labels = splits
        self.train, self.test = (examples.only(self.model.modalities) for examples in splits.values())
        self.folder = config.samples_dir
        torch.manual_seed(config.seed)
        processes.seed_each_process()

    def figures(self, head: str) -> list[Table]:
        """Compute all scores, save kl.png, and return the tables; `head` is the title of the first column."""
        config, data, model, labels = self.config, self.data, self.model, self.labels["test"]
        posteriors, priors = (), {}
        if data.given_all:
            few = self.train.take(slice(MAX_FITTED))
            posteriors = Posteriors(model, few, self.labels["train"][:MAX_FITTED]), Posteriors(model, self.test, labels)
            if model.prior.is_mixture:
                u = shared_means(posteriors[0]).flatten(0, 1)
                pruned_prior = pruned(model.prior, u, load_config(config.model).get("beta", 1.0))
                priors = {"the prior": model.prior, "the pruned prior": pruned_prior}
        right = self.right(priors)
        scores = {}
        for name, x in right.items():
            scores[name] = x.double().mean(dim=1)
            if data.all_right:
                scores[f"{name}, {data.all_right}"] = x.all(dim=1)
        scores |= cluster_accuracies(*posteriors, priors) if posteriors else {}
        shares = tables.summarise(scores)
        notes = (tables.other_data(config), *tables.notes_on(shares, len(self.train), self.n_incomplete))
        shown = [estimate_table(shares, (head, "%"), percent, " ".join(filter(None, notes)))]
        similarities = ssim(posteriors[1], data.shown.images) if posteriors else {}
        if data.by_subset:
            subsets = scores_by_subset(*posteriors, self.judges, data.inception)
            of_each = {", ".join(given): scores for given, scores in subsets.items()}  # for the JSON alone
            shown += [by_size_table(scores_by_size(subsets)), Table("by_subset", of_each, (), ())]
        shown += data.tables(*posteriors, self.with_labels)
        if similarities:
            similarity = tables.summarise({f"SSIM, {pair}": x for pair, x in similarities.items()})
            shown.append(estimate_table(similarity, ("reconstruction", "similarity"), partial(decimals, n=3)))
        titles = {name: name for name in right} if data.columns is None else data.columns
        columns = {titles[name]: x.double().mean(dim=0) for name, x in right.items() if name in titles}
        columns = {title: x for title, x in columns.items() if len(x) > 1}
        columns |= data.more(config, model, self.judges, labels)
        if columns:
            rows = {name: {title: x[i].item() for title, x in columns.items()} for i, name in enumerate(data.names)}
            shown.append(tables.attribute_table(rows, label=data.label))
        self.kls = kl_plot(self.folder / "kl.png", model, self.test, self.sources)
        nats = tables.summarise({name: kl.sum(dim=1) for name, kl in self.kls.items()})
        return [*shown, kl_table(nats, head), parameter_table(parameter_counts(model), data.name)]

    def right(self, priors: Mapping[str, ClusteredPrior]) -> dict[str, Tensor]:
        """Which labels are right: those of judges, samples and latents, {name: (N, G) bool}.

        Shared and private latents are read by linear classifiers of their own, one z of q(z|x_source) for each example.
        """
        model, labels, n = self.model, self.labels["test"], self.config.mixture
        right = {
            f"classifier, {name}": read_right(judge, self.with_labels["test"], labels)
            for name, judge in self.judges.items()
            if judge.trained
        }
        samplers = self.data.samplers(model, self.train, self.test)
        stand_ins = {f", z from {n} Gaussians": gaussian_mixture(model, self.train, n)} if n else {}
        stand_ins |= self.stand_ins
        stand_ins |= {f", z from {name}": prior() for name, prior in priors.items() if prior is not model.prior}
        pairs = cross_coherence(model, self.test, labels, self.judges, self.sources, samplers)
        right |= {f"coherence, {pair}": x for pair, x in pairs.items()}
        if len(self.generated) > 1:
            for name, latents in ({"": None} | stand_ins).items():
                n_samples = self.config.n_samples
                right[f"coherence, joint{name}"] = joint_coherence(model, n_samples, self.generated, latents)
        of_train, of_test = self.labels["train"].to(model.device), labels.to(model.device)
        self.z = sampled_latents(model, self.test, self.sources)
        for name, z in sampled_latents(model, self.train, self.sources).items():
            for which, part in latent_parts(model.n_shared).items():
                pairs = (z[:, part], of_train), (self.z[name][:, part], of_test)
                right[f"latent accuracy{which}, {name}"] = processes.on_first_process(
                    lambda pairs=pairs: latent_accuracy(*pairs, self.data.n_values).cpu()
                )
        return right

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
            latent_map(pictures[-1], self.model, self.z, self.data.groups(self.labels["test"]))
        return pictures


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
