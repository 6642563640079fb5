"""torchvision, importable with any build of torch: import it from here.

The registry's torchvision is built for CUDA. With a CPU build of torch its compiled library does not load, and its
import fails with "operator torchvision::nms does not exist", because two of its operators have no schema. Declaring
these two is enough for everything this repository uses (datasets, transforms, utils, models).
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
