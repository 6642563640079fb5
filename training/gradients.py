"""Gradients summed over processes while the backward pass computes others."""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

BUCKET_BYTES = 25 * 2**20  # as in PyTorch's DistributedDataParallel


class SummedGradients:
    """Sums each parameter's gradient over the processes, in place; it stays None if no process has one.

    Gradients are sent in buckets, in the reverse order of the parameters. A bucket is sent as soon as its gradients are
    complete, while the backward pass computes those of earlier layers (Li et al. 2020, arXiv 2006.15704). Unlike
    DistributedDataParallel it allows processes without a gradient: their rows lack a modality, or they have no rows.

    Args:
        parameters: those of the objective.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self.buckets: list[list[nn.Parameter]] = []
        n_bytes = BUCKET_BYTES
        for x in reversed([x for x in parameters if x.requires_grad]):
            if n_bytes >= BUCKET_BYTES or x.dtype != self.buckets[-1][0].dtype:
                self.buckets.append([])
                n_bytes = 0
            self.buckets[-1].append(x)
            n_bytes += x.nbytes
            x.register_post_accumulate_grad_hook(self._note)
        self.bucket_of = {x: i for i, bucket in enumerate(self.buckets) for x in bucket}
        self.awaited: list[int] | None = None  # gradients that each bucket still waits for; None: send none yet
        self.sent: list[tuple[Tensor, dist.Work]] = []

    def start(self) -> None:
        """Send buckets during the coming backward pass, which must be the only one of the step."""
        self.awaited = [len(bucket) for bucket in self.buckets]

    def finish(self) -> None:
        """Send the remaining buckets, wait for all, and set the gradients."""
        self.awaited = None
        while len(self.sent) < len(self.buckets):
            self._send()
        for bucket, (message, work) in zip(self.buckets, self.sent, strict=True):
            work.wait()
            counts, *sums = message.split([len(bucket), *(x.numel() for x in bucket)])
            for x, count, total in zip(bucket, counts.tolist(), sums, strict=True):
                # in the parameter's own memory layout, which the fused optimiser requires
                gradient = torch.zeros_like(x) if x.grad is None else x.grad
                x.grad = gradient.copy_(total.view_as(x)) if count else None
        self.sent = []

    def _note(self, parameter: nn.Parameter) -> None:
        """A parameter's gradient is there: send its bucket if it is complete and all before it have been sent."""
        if self.awaited is None:
            return
        self.awaited[self.bucket_of[parameter]] -= 1
        while len(self.sent) < len(self.buckets) and self.awaited[len(self.sent)] == 0:
            self._send()

    def _send(self) -> None:
        """Send the next bucket: for each parameter whether it has a gradient, and the gradients."""
        bucket = self.buckets[len(self.sent)]
        has_gradient = bucket[0].new_tensor([float(x.grad is not None) for x in bucket])
        gradients = [(torch.zeros_like(x) if x.grad is None else x.grad).flatten() for x in bucket]
        message = torch.cat([has_gradient, *gradients])
        self.sent.append((message, dist.all_reduce(message, async_op=True)))
