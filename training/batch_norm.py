"""Batch norm with the mean and variance of all processes' rows, as if one process had them all."""

import torch
import torch.distributed as dist
from torch import Tensor, nn

from common import distributed
from common.data.batches import Examples
from common.encoders_decoders import has_batch_norm
from common.errors import require
from common.objectives.base import Objective


class SynchronisedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of (N, C, ...), with statistics over the N rows of all processes in training.

    PyTorch's SyncBatchNorm runs only on GPUs. Every process must call it as often as the others.
    """

    def _check_input_dim(self, x: Tensor) -> None:
        """Any (N, C, ...) will do."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise; in training also move the running statistics towards the batch's."""
        if not self.training:
            return super().forward(x)
        rows = [i for i in range(x.dim()) if i != 1]
        shape = [-1 if i == 1 else 1 for i in range(x.dim())]
        n = distributed.sum_over_processes(x.new_tensor(x.numel() / x.shape[1], dtype=torch.float32))
        mean = _sum(x.float().sum(dim=rows)) / n
        centred = x.float() - mean.view(shape)
        variance = _sum(centred.square().sum(dim=rows)) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


def _sum(x: Tensor) -> Tensor:
    """The sum of all processes' x, through which gradients flow back to each of them."""
    return dist.nn.functional.all_reduce(x)


def synchronise(model: nn.Module) -> None:
    """Give all batch norms of a model, in place, the statistics of all processes."""
    for parent in list(model.modules()):
        for name, norm in parent.named_children():
            if isinstance(norm, nn.modules.batchnorm._BatchNorm):
                with torch.device("meta"):
                    synchronised = SynchronisedBatchNorm(norm.num_features, norm.eps, norm.momentum)
                synchronised.load_state_dict(norm.state_dict(keep_vars=True), assign=True)
                setattr(parent, name, synchronised)


def check_synchronised(objective: Objective, examples: Examples, batch_size: int) -> None:
    """Raise InputError where processes could call a batch norm more or less often than others, and wait for ever."""
    needs, world_size = "--sync-batch-norm needs", distributed.world_size()
    require(has_batch_norm(objective), f"{needs} a model with batch norm, this one has none: leave it out")
    require(
        examples.mask is None and not objective.random_subsets,
        f"{needs} all modalities of all examples, and the same terms in each step: leave it out",
    )
    sizes = {min(batch_size, len(examples)), len(examples) % batch_size or batch_size}
    require(
        min(sizes) >= 2 * world_size,  # one row alone has no variance
        f"{needs} two rows for each process: a batch has {min(sizes)} for {world_size}, choose another --batch-size",
    )
