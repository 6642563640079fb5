"""The modalities of the data that a model has, checked before the model sees them."""

from collections.abc import Callable
from dataclasses import replace

from common.data.batches import Examples, is_missing, n_columns
from common.errors import require
from common.likelihoods import BernoulliLikelihood, CategoricalLikelihood
from common.multimodal_vae import MultimodalVAE
from common.progress import print_once
from common.values import check_type, outside_unit_interval

import torch
from torch import Tensor

ROWS_AT_ONCE = 10_000  # whose values are checked


def modelled(config: object, data: Examples, model: MultimodalVAE) -> Examples:
    """The data's modalities that the model has, checked before a training on them.

    Examples that lack all values of a modality (`is_missing`) lack it. Those that lack some are counted on the standard
    error, since their other values are scored.

    Raises:
        InputError: the data lack one of the model's, or have values that it cannot take; a mask's columns are not the
            model's modalities.
    """
    require(len(data) > 0, "there is no example")
    known = tuple(dict.fromkeys((*data.modalities, *data.derived)))
    lacking = [name for name in model.modalities if name not in known]
    named = f"the model's encoders name {', '.join(lacking)}, which the data lack (they have {', '.join(known)})"
    require(not lacking, f"{named}: give both the same names")
    if data.mask is not None:
        ordered, names = tuple(name for name in known if name in model.modalities), ", ".join(model.modalities)
        order = f"a mask's columns are {names}, as the model's encoders, and the data have {', '.join(ordered)}"
        require(ordered == model.modalities, f"{order}: give both the same order")
        n, shape = n_columns(model.columns), tuple(data.mask.shape)
        size = f"a mask needs {n} columns, ({shape[0]}, {n}), for {names}; its shape is {shape}"
        require(len(shape) > 1 and shape[-1] == n, size)
    selected = replace(replace(data, mask=None).only(model.modalities), mask=data.mask)
    check_values(selected, model)
    return _look_for_missing(selected, model)


def _look_for_missing(examples: Examples, model: MultimodalVAE) -> Examples:
    """The same examples, with a mask without the modalities that lack all values, and with `incomplete`."""
    made = {name: (name, None) for name in examples.modalities} | dict(examples.derived)
    mask, incomplete = examples.mask, []
    for name, (source, make) in made.items():
        x, columns = examples.modalities[source], model.columns[name]
        if x.dtype in (torch.uint8, torch.bool):
            continue
        dims = 1 if columns.n_elements is None else 2
        parts = (is_missing(make(part) if make else part) for part in x.split(ROWS_AT_ONCE))
        parts = (part.reshape(*part.shape[:dims], -1) for part in parts)
        absent, lacking = map(torch.cat, zip(*((part.all(-1), part.any(-1)) for part in parts), strict=True))
        if examples.rows:
            absent, lacking = absent[examples.rows[source]], lacking[examples.rows[source]]
        if absent.any():
            shape = absent.shape[: absent.dim() + 1 - dims]
            mask = absent.new_ones(*shape, n_columns(model.columns)) if mask is None else mask.clone()
            columns.of(mask).masked_fill_(absent, False)
        present = ~absent if mask is None else columns.of(mask)
        n = int((present & lacking).reshape(len(examples), -1).any(-1).sum())
        if n:
            incomplete.append(name)
            print_once(f"{n:,} of {len(examples):,} examples lack some values of {name}: their other values are scored")
    return replace(examples, mask=mask, incomplete=tuple(incomplete))


def check_present(examples: Examples, model: MultimodalVAE) -> None:
    """Raise InputError for a modality that no example has, as with a mask that has False for present."""
    if examples.mask is not None:
        nowhere = [name for name, column in model.columns.items() if not column.of(examples.mask).any()]
        remedy = "NaN, -1, and False in a mask, are for what is missing"
        require(not nowhere, f"no example has {', '.join(nowhere)}: {remedy}")


def check_values(examples: Examples, model: MultimodalVAE) -> None:
    """Raise InputError for values of a type, shape or range that the model cannot take, where the mask is True."""
    for name in (name for name in model.modalities if name in examples.modalities):
        likelihood, p = dict(model.likelihood.items()).get(name), model.decoded_once(name)
        x, is_set = examples.modalities[name], model.columns[name].n_elements is not None
        check_type(name, x, likelihood, next(model.parameters()).dtype, in_examples=True)
        if p is not None:
            n, row = x.dim() - 1 - is_set, "element" if is_set else "example"
            number = f"the log-density of {name} must be one number for each {row}, which has {n} dimensions"
            require(len(p.batch_shape) == 1 + is_set, f"{number}: give its likelihood event_dims={n}")
            given, decoded = tuple(x.shape[1:]), tuple(p.batch_shape[1:] + p.event_shape)
            fits = given == decoded or name in examples.derived
            require(fits, f"an example of {name} has the shape {given}, its decoder gives {decoded}: make them equal")
        if x.dtype in (torch.uint8, torch.bool):
            continue
        floats = x.is_floating_point()
        if floats:
            _require_none(torch.isinf, "infinity", name, examples, model, "NaN says that a value is missing")
        if isinstance(likelihood, CategoricalLikelihood) and p is not None:
            last = p.logits.shape[-1] - 1
            remedy = f"its decoder gives the classes 0 to {last}: count classes from 0, or give the decoder more"
            _require_none(lambda x, last=last: x > last, f"a class above {last}", name, examples, model, remedy)
        if floats and isinstance(likelihood, BernoulliLikelihood):
            remedy = "scale them, or give uint8, which becomes [0, 1]"
            _require_none(outside_unit_interval, "values outside [0, 1]", name, examples, model, remedy)


def _require_none(
    is_wrong: Callable[[Tensor], Tensor], what: str, name: str, examples: Examples, model: MultimodalVAE, remedy: str
) -> None:
    """Raise InputError for examples that have a modality with wrong values, as `is_wrong`, (N, ...) -> (N, ...), tells.

    Rows are looked at in parts, since a mapped file can be larger than memory.
    """
    columns = model.columns[name]
    dims = 1 if columns.n_elements is None else 2
    parts = (is_wrong(x) for x in examples.modalities[name].split(ROWS_AT_ONCE))
    wrong = torch.cat([x.reshape(*x.shape[:dims], -1).any(dim=-1) for x in parts])  # (N,), of a set (N, n)
    if not wrong.any():
        return
    if examples.rows:
        wrong = wrong[examples.rows[name]]
    if examples.mask is not None:
        wrong = wrong & columns.of(examples.mask)
    n = int(wrong.reshape(len(examples), -1).any(dim=1).sum())
    require(n == 0, f"{name} has {what} in {n:,} of {len(examples):,} examples: {remedy}")
