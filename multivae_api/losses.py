"""MultiVae's methods that take samples and give losses, and the forms of inputs that all its methods take."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from common.data.batches import Batch, observe
from common.data.records import Record
from common.experts import mixture_log_prob
from common.likelihoods import log_prob
from common.multimodal_vae import MultimodalVAE
from common.objectives.importance import bound
from multivae_api.config import MMVAEConfig
from multivae_api.data import ModelOutput, check_masks

import torch
from torch import Tensor
from torch.distributions import Distribution


class LossesOfSamples(MultimodalVAE):
    """A mixture-of-experts model whose bound can be computed from given samples and reconstructions."""

    model_config: MMVAEConfig

    def observe(self, inputs: object) -> Batch:
        """The inputs as a Batch.

        Args:
            inputs: what `MultimodalVAE.observe` takes; or an object or mapping that has this as `data`, and optionally
                `masks`, {name: (B,) bool}, True where an example has the modality.

        Raises:
            InputError: see `MultimodalVAE.observe`; masks of unknown modalities, of other shapes, or of other values.
        """
        if isinstance(inputs, Mapping) and "data" in inputs and "data" not in self.modalities:
            inputs = Record(inputs)
        elif isinstance(inputs, Batch | Mapping | Sequence | Tensor):
            return super().observe(inputs)
        masks = getattr(inputs, "masks", None)
        if masks is None:
            return super().observe(inputs.data)
        batch = observe(inputs.data, self.columns)
        present = self.present(batch)
        check_masks(masks, {name: tuple(x.shape) for name, x in present.items()})
        mask = torch.stack([x & masks.get(name, x).bool() for name, x in present.items()], dim=1)
        batch = replace(batch, mask=None if mask.all() else mask)
        self.check_values(batch)  # where the masks leave them
        return batch

    def present(self, batch: Batch) -> dict[str, Tensor]:
        """Which examples have each modality, {name: (B,) bool}."""
        x = next(iter(batch.modalities.values()))
        mask = x.new_ones(len(x), len(self.modalities), dtype=torch.bool) if batch.mask is None else batch.mask
        return dict(zip(self.modalities, mask.unbind(dim=1), strict=True))

    def details(self, batch: Batch, params: tuple[Tensor, ...], z: Tensor) -> dict[str, object]:
        """What the losses take: the detailed output of `forward`.

        Args:
            params: the experts' parameters, (M, B, D) each.
            z: their samples, (M, K, B, D).
        """
        family = self.variational_posterior.component
        columns = {name: m for m, (name, present) in enumerate(self.present(batch).items()) if present.any()}
        qs = {name: family(tuple(p[m] for p in params)) for name, m in columns.items()}
        samples = {name: z[m] for name, m in columns.items()}
        # of the samples by name, so that a hook on them (`dreg_looser`) meets the gradient through the decoders
        outputs = self.decoder_outputs(torch.stack(list(samples.values())), tuple(columns))  # {name: (T, K, B, ...)}
        return {
            "qz_xs": qs,
            "qz_xs_detach": {name: q.detached() for name, q in qs.items()},
            "zss": samples,
            "recon": {source: {name: x[t] for name, x in outputs.items()} for t, source in enumerate(columns)},
        }

    def compute_k_lws(
        self,
        qz_xs: Mapping[str, Distribution],
        embeddings: Mapping[str, Tensor],
        reconstructions: Mapping[str, Mapping[str, Tensor]],
        inputs: object,
    ) -> dict[str, Tensor]:
        """The log importance weights of each encoder's samples, {name: (K, B)}, nats, not aggregated.

        Args:
            qz_xs: {name: q(z|x_m)}, batch shape (B,), event shape (D,).
            embeddings: {name: z (K, B, D)}, samples from each q(z|x_m).
            reconstructions: {source: {name: decoder's output (K, B, ...)}}, from the samples of each source.
        """
        batch = self.observe(inputs)
        present = self.present(batch)
        has_expert = torch.stack([present[name] for name in qz_xs], dim=1)  # (B, T)
        # an example without any gets all experts here, so that log q is finite; it has no weight in the bounds
        has_expert = has_expert | ~has_expert.any(dim=1, keepdim=True)
        lws = {}
        for source, z in embeddings.items():
            log_q = mixture_log_prob(torch.stack([q.log_prob(z) for q in qz_xs.values()]), has_expert)
            lws[source] = self.model_config.beta * (self.prior().log_prob(z) - log_q)
            for name, p in self.likelihood(reconstructions[source]).items():
                if name in batch.modalities:
                    log_p = log_prob(name, p, batch.modalities[name], None, batch.observed.get(name))
                    lws[source] = lws[source] + self.weights[name] * torch.where(present[name], log_p, 0)
        return lws

    def iwae_looser(
        self,
        qz_xs: Mapping[str, Distribution],
        embeddings: Mapping[str, Tensor],
        reconstructions: Mapping[str, Mapping[str, Tensor]],
        inputs: object,
    ) -> ModelOutput:
        """`loss`, `loss_sum` and `metrics` of IWAE's looser bound, with its own gradient.

        Arguments as for `compute_k_lws`.
        """
        log_w, pi = self._stacked(self.compute_k_lws(qz_xs, embeddings, reconstructions, inputs), inputs)
        value = torch.where(pi.any(dim=0), bound(log_w, pi, looser=True), 0)
        return loss_output({"bound": value})

    def dreg_looser(
        self,
        qz_xs: Mapping[str, Distribution],
        embeddings: Mapping[str, Tensor],
        reconstructions: Mapping[str, Mapping[str, Tensor]],
        inputs: object,
    ) -> ModelOutput:
        """The same bound with the paper's DReG gradient, biased for mixtures; `forward` has the unbiased one.

        Args:
            qz_xs: as for `compute_k_lws`, with detached parameters.
            embeddings: as for `compute_k_lws`; they get hooks that scale their gradient in the next backward pass.
            reconstructions, inputs: as for `compute_k_lws`.
        """
        log_w, pi = self._stacked(self.compute_k_lws(qz_xs, embeddings, reconstructions, inputs), inputs)
        w = log_w.detach().softmax(dim=1)  # (T, K, B)
        for z, w_of_z in zip(embeddings.values(), w, strict=True):
            if z.requires_grad:
                z.register_hook(lambda gradient, w_of_z=w_of_z: gradient * w_of_z.unsqueeze(-1))
        value = torch.where(pi.any(dim=0), bound(log_w, pi, looser=True), 0)
        return loss_output({"bound": value})

    def _stacked(self, lws: Mapping[str, Tensor], inputs: object) -> tuple[Tensor, Tensor]:
        """log w (T, K, B), and pi (T, B), equal for the encoders of the modalities that an example has."""
        present = self.present(self.observe(inputs))
        pi = torch.stack([present[name] for name in lws]).float()
        return torch.stack([*lws.values()]), pi / pi.sum(dim=0).clamp(min=1)


def loss_output(metrics: Mapping[str, Tensor]) -> ModelOutput:
    """The values that training reads.

    Args:
        metrics: {name: (B,)}, with "bound", whose gradient training takes.

    Returns:
        `loss`, minus the bound's mean over the batch; `loss_sum`, its sum; `metrics`, {name: mean}.
    """
    loss = -metrics["bound"].mean()
    means = {name: x.detach().mean() for name, x in metrics.items()}
    return ModelOutput(loss=loss, loss_sum=loss * len(metrics["bound"]), metrics=means)
