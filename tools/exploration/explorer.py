"""A model's modalities, decoded at a point of its latent space."""

import html
from collections.abc import Sequence
from typing import Any

from common.execution.random_states import fixed_noise
from common.models import MultimodalVAE
from tools.exploration.views import Picture, View

import torch
from torch import Tensor
from torch.distributions import Distribution

N_SLIDERS = 8


class Explorer:
    """Decodes a model's modalities at a point of its latent space.

    Args:
        views: the views of the modalities that the page shows.
        latents: what a random draw without anything given comes from in place of the prior.

    Attributes:
        dimensions: the latents that change the decoded pictures most, (N_SLIDERS,).
    """

    def __init__(self, model: MultimodalVAE, views: dict[str, View], latents: Distribution | None = None) -> None:
        self.model, self.views = model, {name: view for name, view in views.items() if name in model.modalities}
        self.latents = latents
        self.device = model.device
        z = self.at({})  # (1, D)
        steps = torch.eye(z.shape[1], device=self.device)
        shown = [name for name, view in self.views.items() if isinstance(view, Picture)] or list(self.views)
        project = self.model.prior().project
        above, below = (self.model.decode(project(z + sign * steps), shown) for sign in (2, -2))
        has_pictures = isinstance(self.views[shown[0]], Picture)
        pairs = [[p[x].mean if has_pictures else p[x].logits.softmax(dim=-1) for p in (above, below)] for x in shown]
        effect = sum((a - b).square().flatten(1).sum(dim=1) for a, b in pairs)  # (D,)
        self.dimensions = effect.argsort(descending=True)[:N_SLIDERS].tolist()

    @torch.no_grad()
    def at(self, inputs: dict[str, Tensor], draw: int = 0) -> Tensor | dict[str, Tensor]:
        """The mean of q(z|inputs), or of the prior without inputs, (1, D).

        Args:
            draw: if not 0, seed of a sample to return instead of the mean; see `MultimodalVAE.draw_latents`.
        """
        inputs = {name: x.to(self.device) for name, x in inputs.items()}
        q = self.model.posterior(inputs) if inputs else self.model.prior().expand((1,))
        point = q.point
        if not draw and point.isfinite().all():  # the uniform prior on a sphere has no mean direction
            return point
        with fixed_noise(draw, self.device):
            return q.sample() if inputs or not draw else self.model.draw_latents(1, self.latents)

    @torch.no_grad()
    def frame(self, given: Sequence[Any], draw: int, moves: Sequence[float]) -> str:
        """All modalities as HTML.

        Args:
            given: the values of the input components.
            draw: see `at`.
            moves: the positions of the sliders, at most len(dimensions).
        """
        read = {name: view.read(value) for (name, view), value in zip(self.views.items(), given, strict=True)}
        z = self.at({name: x for name, x in read.items() if x is not None}, draw)
        dimensions = torch.tensor(self.dimensions[: len(moves)], dtype=torch.long, device=self.device)

        def moved(z: Tensor) -> Tensor:
            return self.model.prior().project(z.index_add(1, dimensions, torch.tensor([moves]).to(z)))

        z = {name: moved(x) for name, x in z.items()} if isinstance(z, dict) else moved(z)
        p = self.model.decode(z, list(self.views))
        shown = {name: view.show(p[name]) for name, view in self.views.items()}
        return "".join(
            f"<figure><figcaption>{html.escape(name)}</figcaption>{content}</figure>" for name, content in shown.items()
        )
