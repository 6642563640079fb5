"""What sample.py makes: draws of z from the prior, what stands in for it or q(z|x_S), decoded as pictures and texts."""

import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from common.data.batches import Batch, Examples
from common.errors import InputError, require
from common.execution import processes
from common.fitted_priors import own_latents
from common.io import write_atomically
from common.latent_priors import LatentPrior, ScorePrior
from common.multimodal_vae import MultimodalVAE
from reports import plots
from reports.metrics import by_rows

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, MixtureSameFamily, MultivariateNormal
from torch.nn.functional import pad

COLUMNS = 8  # images in a row
STEPS = 9  # pictures along a latent
MAX_LATENTS = 20  # latents of a traversal
MAX_FITTED = 10_000  # training examples that a mixture is fitted to
LONGEST = 60  # bytes of a user's text in a file name; file systems allow 255 for the whole name


class Shown(NamedTuple):
    """How pictures show values.

    images: names of the modalities that are images (N, C, H, W) in [0, 1].
    captions: {modality: values (N, ...)} -> N texts that tell the other modalities, or none; None for no captions.
    sentences: whether captions are too long to fit below small images.
    """

    images: tuple[str, ...]
    captions: Callable[[Mapping[str, Tensor]], Sequence[str]] | None = None
    sentences: bool = False

    def rows(self, values: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Sequence[str]]]:
        """{image modality: (its images (N, 3, H, W), captions)} of those among the values; all of one size."""
        texts = list(self.captions(values)) if self.captions else []
        images = {name: values[name].float() for name in self.images if name in values}
        return {name: (x, texts or [""] * len(x)) for name, x in framed(images).items()}

    def save(
        self, path: Path, images: Tensor, labels: Sequence[str] | None, captions: Sequence[Sequence[str]], title: str
    ) -> None:
        """Save a grid of images, see `reports.plots`, with the captions if there are any to show."""
        if self.sentences and any(map(any, captions)):
            plots.captioned(path, images, labels, captions, title)
        else:
            plots.image_grid(path, images, labels, captions if self.captions else None, title)


class Given(NamedTuple):
    """What samples are given; by default nothing, and they are of the prior.

    inputs: {modality: (1, ...) or (n, ...)}.
    names: {modality: the user's text, or the name of a file}, for the name of the picture.
    title: says in the picture what is given.
    beside: images (k, C, H, W) at the left of the first k rows; None for none.
    """

    inputs: Mapping[str, Tensor] = {}
    names: Mapping[str, str] = {}
    title: str = ""
    beside: Tensor | None = None


NOTHING = Given()


@torch.no_grad()
def samples(
    path: Path,
    model: MultimodalVAE,
    n: int,
    shown: Shown,
    columns: int = COLUMNS,
    given: Given = NOTHING,
    latents: Distribution | None = None,
    z: Tensor | None = None,
) -> dict[str, Tensor]:
    """Save what n draws of q(z|inputs), or of the prior, decode to: means or modes, {modality: (n, ...)}.

    Args:
        latents: what to draw z from in place of the prior.
        z: the latents (n, D) themselves.
    """
    inputs = {name: x.to(model.device).expand(n, *x.shape[1:]) for name, x in given.inputs.items()}
    if z is None:
        z = model.posterior(inputs).sample() if inputs else model.draw_latents(n, latents)
    values = model.likelihood.point(model.decode(z, given=inputs))
    images, labels, captions = plots.alternating(shown.rows(values), columns)
    if given.beside is not None:
        images, captions = plots.beside(given.beside, images, captions)
    title = f"samples given {given.title}" if inputs else title_of(latents)
    if others := ", ".join(name for name in values if name not in shown.images):
        title = f"{title}; below each its decoded {others}"
    shown.save(path, images, labels if len(shown.images) > 1 else None, captions, title)
    return values


@torch.no_grad()
def reconstructions(
    path: Path, model: MultimodalVAE, examples: Examples, shown: Shown, others: str
) -> dict[str, Tensor]:
    """Save images above what the posterior's point given the image decodes to, {modality: (N, ...)}.

    A CVAE, which infers z from an image and its label together, gets both.

    Args:
        others: what the picture calls the other modalities.
    """
    values = examples.to(model.device)[:].modalities
    from_image_alone = "image" in model.encoder
    given = ("image",) if from_image_alone else model.modalities
    decoded = model.reconstruct({name: values[name] for name in given})
    rows = {label: shown.rows(x)["image"] for label, x in {"given": values, "decoded": decoded}.items()}
    title = f"reconstructions from the image{'' if from_image_alone else f' and its {others}'}"
    shown.save(path, *plots.alternating(rows, COLUMNS), title)
    return decoded


@torch.no_grad()
def decoded(
    path: Path,
    model: MultimodalVAE,
    examples: Examples,
    given: Sequence[str],
    shown: Shown,
    columns: int,
    latents: Distribution | None = None,
) -> None:
    """Save given images, and below them all images decoded from one draw of `latents_given`."""
    batch = examples.only(model.modalities).to(model.device)[:]
    z = latents_given(model, batch, given, latents)
    values = model.likelihood.point(model.decode(z, given=batch.modalities))
    of_given = shown.rows({name: batch.modalities[name] for name in given})
    rows = {f"{name}, given": row for name, row in of_given.items()} | shown.rows(values)
    images = framed({label: x for label, (x, _) in rows.items()})
    rows = {label: (images[label], texts) for label, (_, texts) in rows.items()}
    shown.save(path, *plots.alternating(rows, columns), f"decoded from a sample of q(z|{','.join(given)})")


def latents_given(
    model: MultimodalVAE,
    inputs: Mapping[str, Tensor] | Batch,
    given: Sequence[str],
    latents: ScorePrior | None = None,
) -> Tensor | dict[str, Tensor]:
    """A draw of q(z|x_given), (B, D); of the experts and `latents` given their draws, {name: (B, D)}.

    Args:
        latents: a score network of the modalities' own latents.

    Raises:
        InputError: `latents` of a model whose modalities share z.
    """
    if latents is None:
        return model.posterior(inputs, given).sample()
    shared = "--given with --latent-prior needs latents of each modality, as models of --model mmvm have"
    require(len(latents.event_shape) == 2, f"{shared}: leave out --latent-prior")
    z = own_latents(model, inputs, given)  # (B, M, D)
    return model.placed(latents.sample_given(z, [model.modalities.index(name) for name in given]))


@torch.no_grad()
def cross_generation(
    path: Path, model: MultimodalVAE, examples: Examples, sources: Mapping[str, Sequence[str]], shown: Shown
) -> None:
    """Save a matrix of pictures: examples, and below them what one z of q(z|x_source) gives, a row for each pair.

    Args:
        examples: N examples of the model's modalities, a column each.
        sources: {name: modalities given}.
    """
    batch = examples.to(model.device)[:]
    rows = {f"{name}, given": row for name, row in shown.rows(batch.modalities).items()}
    for source, given in sources.items():
        targets = [name for name in model.modelled if set(model.modality[name].given) <= set(given)]
        z = model.posterior(batch, given).sample()
        values = model.likelihood.point(model.decode(z, targets, batch.modalities))
        rows |= {f"{source} -> {name}": row for name, row in shown.rows(values).items()}
    images, captions = zip(*rows.values(), strict=True)
    shown.save(path, torch.stack([x.cpu() for x in images]), [*rows], captions, "given, and decoded from one z")


@torch.no_grad()
def traversals(stem: Path, model: MultimodalVAE, shown: Shown, latents: Sequence[int] | None = None) -> list[Path]:
    """Save decodings along latents, one per row, from -3 to 3 standard deviations of the prior; returns the files.

    Sentences are left out.

    Args:
        stem: the files are `stem`_MODALITY.png.
        latents: which latents, by default the first `MAX_LATENTS`.
    """
    prior = model.prior()
    chosen = torch.as_tensor(range(len(prior.mean)) if latents is None else latents, device=prior.mean.device)
    chosen = chosen[:MAX_LATENTS]
    steps = torch.linspace(-3, 3, STEPS, device=prior.mean.device)
    one = torch.eye(len(prior.mean), device=prior.mean.device)[chosen] * prior.stddev
    z = prior.mean + steps[:, None] * one[:, None]  # (latents, STEPS, D)
    targets = [name for name in model.modelled if not model.modality[name].given]
    values = model.likelihood.point(model.decode(z.flatten(0, 1), targets))
    shown, pictures = Shown(shown.images, None if shown.sentences else shown.captions), []
    for name, row in shown.rows(values).items():
        pictures.append(stem.with_name(f"{stem.name}_{name}.png"))
        title = f"{name} along each latent, -3 to 3 standard deviations of the prior"
        images, captions = plots.in_rows(*row, STEPS)
        shown.save(pictures[-1], images, [f"z{d}" for d in chosen.tolist()], captions, title)
    return pictures


def framed(images: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Images (N, C, H, W) by name, each padded to the height and the width of the largest: (N, 3, H, W)."""
    height, width = (max((x.shape[d] for x in images.values()), default=0) for d in (-2, -1))
    padded = {}
    for name, x in images.items():
        down, right = height - x.shape[-2], width - x.shape[-1]
        padded[name] = pad(x, (right // 2, right - right // 2, down // 2, down - down // 2)).expand(-1, 3, -1, -1)
    return padded


def title_of(latents: Distribution | None) -> str:
    """The title of samples from the prior, or from what stands in for it."""
    if latents is None:
        return "samples from the prior"
    if isinstance(latents, LatentPrior):
        return "samples from a density fitted to latents"
    of_mixture = isinstance(latents, MixtureSameFamily)
    return f"samples from a {'mixture of Gaussians' if of_mixture else 'cluster of the prior'}"


def cluster_of(prior: nn.Module, cluster: int) -> Distribution:
    """p(z|c) of one cluster c of a clustered prior, event shape (D,).

    Raises:
        InputError: the prior has no clusters, or not this one.
    """
    require(prior.is_mixture, "--cluster needs a prior of clusters, as models of --model cmvae have: leave it out")
    n = len(prior.logits)
    require(0 <= cluster < n, f"--cluster must lie between 0 and {n - 1}, it is {cluster}")
    return prior.only(torch.tensor([cluster]))()


@torch.no_grad()
def gaussian_mixture(model: MultimodalVAE, train: Examples, n_components: int) -> MixtureSameFamily:
    """Fit a mixture of Gaussians, by expectation maximisation, to one draw of q(z|X) for each training example.

    It covers the latents of the examples, which the prior may miss: MVTCAE, whose posteriors leave the prior out,
    decodes nothing recognisable from samples of the prior (Hwang et al. 2021). (GaussianMixtureSampler of the
    `multivae` package.)

    Args:
        train: examples, at most `MAX_FITTED` of them are taken, at equal distances.
        n_components: with a mean and a full covariance each.

    Returns:
        a distribution over z, event shape (D,), on the model's device.

    Raises:
        InputError: fewer examples than components, or than two.
    """
    n = min(len(train), MAX_FITTED)
    few = train.only(model.modalities).take(torch.linspace(0, len(train) - 1, n).long()).to(model.device)
    needed = max(2, n_components)
    require(needed <= len(few), f"--mixture {n_components} needs {needed} training examples or more (got {len(few)})")

    z = by_rows(len(few), lambda rows: model.posterior(few[rows]).sample(), "latents for the mixture").double()
    seed = int(torch.randint(2**31, ()))

    def fit() -> tuple[Tensor, ...]:
        from sklearn.mixture import GaussianMixture  # here, since the import takes a second

        fitted = GaussianMixture(n_components, random_state=seed).fit(z.numpy())
        weights, means, covariances = map(torch.from_numpy, (fitted.weights_, fitted.means_, fitted.covariances_))
        return weights, means, torch.linalg.cholesky(covariances)

    weights, means, scale_tril = (x.to(model.device, torch.float32) for x in processes.on_first_process(fit))
    return MixtureSameFamily(Categorical(weights), MultivariateNormal(means, scale_tril=scale_tril))


def name_of(given: Mapping[str, str]) -> str:
    """A file name without suffix that says what samples are given, as "given_image_4_text_5"."""
    return "_".join(["given", *(f"{name}_{readable(text)}" for name, text in given.items())])


def readable(text: str) -> str:
    """Return a user's text as a part of a file's name: its letters and digits, "_" for all else.

    A text that loses more than blanks and dots gets its checksum at the end, so that names differ.
    """
    kept = re.sub(r"[^\w-]+", "_", text).encode()[:LONGEST].decode(errors="ignore")
    lost = kept != re.sub(r"[ .]", "_", text)
    return f"{kept}_{zlib.crc32(text.encode()):08x}" if lost else kept or "none"


def write_lines(path: Path, lines: Iterable[str]) -> Path:
    """Write texts, a line each; creates the folder, and returns the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    return path


@contextmanager
def errors_begin_with(text: str) -> Iterator[None]:
    """Put a text, such as the option that is wrong, before the message of an InputError."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{text}{error}") from error
