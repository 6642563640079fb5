"""torchvision, importable beside any build of torch.

The registry's torchvision is built for CUDA. Beside a CPU build of torch its compiled library does not load, and its
import then fails with "operator torchvision::nms does not exist", because two of its operators have no schema.
Declaring these is enough for all that this repository uses (datasets, transforms, utils, models). Import it from here.
"""

import torch

try:
    from torchvision import datasets, models, transforms
except RuntimeError as error:
    if "operator torchvision::nms does not exist" not in str(error):
        raise
    _library = torch.library.Library("torchvision", "DEF")
    _library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    from torchvision import datasets, models, transforms

__all__ = ["datasets", "models", "transforms"]
