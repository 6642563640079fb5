"""Private latents: appended to the parameters of a posterior of the shared ones, and found in z."""

import torch
from torch import Tensor


def latent_parts(n_shared: int | None) -> dict[str, slice]:
    """The parts of z, {suffix of a figure's name: latents}: the shared ones, and the private ones if there are any.

    Args:
        n_shared: the number of shared latents, which come first; None if all are shared.
    """
    shared = {"": slice(n_shared)}
    return shared if n_shared is None else shared | {", private": slice(n_shared, None)}


def with_private(
    fused: tuple[Tensor, ...], private: tuple[Tensor, ...], prior: tuple[Tensor, ...], present: Tensor | None
) -> tuple[Tensor, ...]:
    r"""Append a modality's private latents to q(z|x_S): its encoder's parameters where it is present, else the prior's.

    .. math:: q(z, w_1, .., w_M|x_S) = q(z|x_S) \prod_{m \in S} q(w_m|x_m) \prod_{m \notin S} p(w_m)

    (DMVAE, Lee & Pavlovic 2021, arXiv 2012.13024; the components of a mixture share the private posteriors.)

    Args:
        fused: parameters of q(z|x_S), each (..., B, D); for a mixture logits (..., B, T) and each (..., B, T, D).
        private: the encoder's parameters of the d private latents, each (B, d).
        prior: the prior's parameters, each (d,).
        present: which examples have the modality, (..., B) bool; None means all.

    Returns:
        the same as `fused`, with D + d latents.
    """
    n = len(private)
    logits, appended = fused[:-n], []  # no logits if it is not a mixture
    for shared, encoded, default in zip(fused[-n:], private, prior, strict=True):
        latents = encoded if present is None else torch.where(present.unsqueeze(-1), encoded, default)  # (..., B, d)
        if logits:
            latents = latents.unsqueeze(-2)  # the same for all components
        appended.append(torch.cat([shared, latents.expand(*shared.shape[:-1], -1)], dim=-1))
    return *logits, *appended


def with_auxiliary(
    fused: tuple[Tensor, ...], private: tuple[Tensor, ...], auxiliary: tuple[Tensor, ...], component: int
) -> tuple[Tensor, ...]:
    """Append a modality's private latents to a mixture: its encoder's in its own component, else an auxiliary prior's.

    (MMVAE+, Palumbo et al. 2023, ICLR.)

    Args:
        fused: logits (B, T), and the components' parameters, each (B, T, D).
        private: the encoder's parameters of the d private latents, each (B, d).
        auxiliary: the auxiliary prior's, each (d,).
        component: the modality's.

    Returns:
        the same as `fused`, with D + d latents.
    """
    logits, *shared = fused
    components = torch.arange(logits.shape[-1], device=logits.device).unsqueeze(-1)  # (T, 1)
    appended = (
        torch.where(components == component, w.unsqueeze(-2), r) for w, r in zip(private, auxiliary, strict=True)
    )
    return logits, *(torch.cat(latents, dim=-1) for latents in zip(shared, appended, strict=True))
