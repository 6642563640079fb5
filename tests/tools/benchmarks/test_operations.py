from collections import defaultdict

import pytest
import torch

from tools.benchmarks import operations
from tools.benchmarks.experiments import EXPERIMENTS, our_turn
from tools.benchmarks.race import operations as n_operations

aten = torch.ops.aten
SHAPES = {"half": ((2, 2), (1, 1), (0, 0)), "one stage": ((1, 1), (0, 0), (0, 0)), "uneven": ((2, 1), (1, 0), (1, 0))}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("transposed", [True, False])
def test_convolutions_as_products_are_convolutions(transposed, shape):
    stride, padding, output_padding = shape
    x = torch.randn(3, 2, 7, 6, dtype=torch.float64)
    weight = torch.randn(2, 5, 4, 3, dtype=torch.float64) if transposed else torch.randn(5, 2, 4, 3).double()
    rest = stride, padding, (1, 1), transposed, output_padding if transposed else (0, 0), 1
    y = aten.convolution(x, weight, None, *rest)
    (found,) = operations.as_products(aten.convolution.default, (x, weight, None, *rest))
    torch.testing.assert_close(found, y)
    for mask in ([True, True, False], [False, True, False], [True, False, False]):
        args = torch.randn_like(y), x, weight, None, *rest, mask
        found = operations.as_products(aten.convolution_backward.default, args)
        for gradient, expected in zip(found, aten.convolution_backward(*args), strict=False):
            assert (gradient is None) == (expected is None)
            if expected is not None:
                torch.testing.assert_close(gradient, expected)


@pytest.mark.slow
def test_all_products_of_a_step_are_found_and_timed():
    turn, n = our_turn("mnist"), EXPERIMENTS["mnist"].steps
    turn()
    found = operations.recorded(turn, n, rounds=1)
    assert sum(operation.calls * operation.flops for operation in found) == n_operations(turn) / n
    assert [operation.seconds for operation in found] == sorted((x.seconds for x in found), reverse=True)
    names = [str(operation) for operation in found]
    assert "addmm, 784, 200x512, 512x784" in names and any(name.startswith("fused adam") for name in names)
    instant, *others = found[:6]
    instant = instant._replace(seconds=1e-12)
    others = [operation._replace(seconds=1e9) for operation in others]
    (seconds, how), *others = operations.shortest([instant, *others], 1, "mnist")
    assert (seconds, how) == (1e-12 / instant.calls, "in the step")
    for seconds, how in others:
        assert seconds > 0 and how in ("as it is", "without oneDNN", "one thread")


@pytest.mark.slow
def test_operations_belong_to_layers_and_to_other_parts_of_the_step():
    turn = our_turn("mnist")
    found = operations.recorded(turn, EXPERIMENTS["mnist"].steps, rounds=1)
    layers = [f"Linear(in_features={i}, out_features={o}, bias=True)" for i, o in ((784, 512), (64, 512), (512, 784))]
    flops = {layer: defaultdict(int) for layer in layers}
    for operation in found:
        layer, backward, _ = operation.part.partition(", backward")
        if layer in flops:
            flops[layer][bool(backward)] += operation.calls * operation.flops
    into, _, out = (flops[layer] for layer in layers)
    assert into[True] == into[False] > 0  # the image needs no gradient
    assert out[True] == 2 * out[False] > 0
    parts = {operation.part for operation in found}
    named = {"sampling", "densities and KLs", "densities and KLs, backward", "gradient's norm and optimiser", "experts"}
    assert named <= parts
    assert {x.part for x in found if "fused_adam" in str(x.function)} == {"gradient's norm and optimiser"}
    assert {x.part for x in found if "binary_cross_entropy" in str(x.function)} == {"densities and KLs"}


def test_a_step_whose_shapes_change_is_counted_as_one_of_its_turns():
    sizes = iter((64, 32, 96))
    weight, flops = torch.randn(8, 8), {2 * n * 8 * 8 for n in (64, 32, 96)}

    def turn():
        n = next(sizes)
        return torch.randn(n, 8) @ weight

    found = operations.recorded(turn, n_steps=1, rounds=3)
    assert sum(operation.calls * operation.flops for operation in found) in flops
    assert len([operation for operation in found if operation.flops]) == 1


def test_a_broadcast_tensor_is_repeated_as_one():
    x = torch.ones(3, 1).expand(3, 4)
    again = operations.Like(tuple(x.shape), x.stride(), x.dtype).random()
    assert again.stride() == x.stride() and again[:, 0].equal(again[:, 3])


@pytest.mark.slow
def test_the_table_shares_out_the_step(capsys):
    operations.main(operations.Config(experiments=("mnist",), rounds=1, rows=2))
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split(" | ") for line in lines if line.count(" | ") == 7 and "%" in line]
    assert len(rows) == 3 and "others" in rows[-1][0]
    assert abs(sum(int(row[2].rstrip("%")) for row in rows) - 100) <= 2
    assert lines[-1].startswith("| mnist |")
