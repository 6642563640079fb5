import pytest
import torch
from torch import nn

from common import encoders_decoders
from common.encoders_decoders import (
    ConcatLayer,
    ConvTranspose2d,
    FromPixel,
    ModalityEmbedding,
    SharedNetwork,
    StackedLinear,
    has_batch_norm,
    is_repeatable,
)

SHAPES = {
    "as DCGAN's": (4, 2, 1),
    "of one stage": (4, 1, 0),
    "flat": ((1, 4), (1, 2), (0, 1)),
    "odd": (3, 2, 1, 1),
    "padded": (12, 1, 6),
}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_a_transposed_convolution_is_torchs(channels, shape, bias, monkeypatch):
    monkeypatch.setattr(encoders_decoders, "PRODUCT_NUMBERS", 1000)  # a batch in parts
    ours = ConvTranspose2d(2, channels, *shape, bias=bias).double()
    theirs = nn.ConvTranspose2d(2, channels, *shape, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    ours.weight.data = ours.weight.data.to(memory_format=torch.channels_last)
    x = torch.randn(7, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    found = [[y := f(x), *torch.autograd.grad(y.square().sum(), (x, *f.parameters()))] for f in (ours, theirs)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("channels", [1, 5])
def test_a_transposed_convolution_in_bf16_is_torchs_up_to_rounding(channels, shape, monkeypatch):
    monkeypatch.setattr(encoders_decoders, "MANY_CHANNELS", 5)  # whose gradients are products
    ours, theirs = (f(2, channels, *shape) for f in (ConvTranspose2d, nn.ConvTranspose2d))
    theirs.load_state_dict(ours.state_dict())
    ours.weight.data = ours.weight.data.to(memory_format=torch.channels_last)
    x = torch.randn(7, 2, 5, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = ours(x), theirs(x)
    assert outputs[0].dtype == torch.bfloat16
    pairs = zip((ours, theirs), outputs, strict=True)
    found = [[y, *torch.autograd.grad(y.float().square().sum(), (x, *f.parameters()))] for f, y in pairs]
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < 0.01 * other.norm()


def test_a_transposed_convolution_of_no_examples():
    layer = ConvTranspose2d(2, 1, 4, 2, 1)
    y = layer(torch.empty(0, 2, 5, 6))
    y.sum().backward()
    assert y.shape == (0, 1, 10, 12) and layer.weight.grad.eq(0).all()


def test_a_transposed_convolution_in_bf16_of_no_examples():
    layer = ConvTranspose2d(2, encoders_decoders.MANY_CHANNELS, 4, 2, 1)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.empty(0, 2, 5, 6)).sum().backward()
    assert layer.weight.grad.eq(0).all()


@pytest.mark.parametrize("bias", [True, False])
def test_a_transposed_convolution_of_a_pixel_is_a_product(bias):
    ours = FromPixel(3, 5, 4, bias).double()
    theirs = nn.ConvTranspose2d(3, 5, 4, bias=bias).double()
    theirs.load_state_dict(ours.state_dict())
    ours.weight.data = ours.weight.data.to(memory_format=torch.channels_last)
    x = torch.randn(7, 3, 1, 1, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, 4, 4)
    found = [[y := f(x), *torch.autograd.grad((weight * y).sum(), (x, *f.parameters()))] for f in (ours, theirs)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("embed_dim", [None, 2])
def test_an_embedding_scales_and_shifts_each_modality(embed_dim):
    layer = ModalityEmbedding(3, 5, embed_dim).double()
    zero, one = (layer(torch.full((1, 5), x, dtype=torch.float64))[0] for x in (0.0, 1.0))
    h = torch.randn(4, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(layer(h), h * (one - zero) + zero)
    torch.testing.assert_close(layer(h[:, 0]), layer(h[:, :1].expand(-1, 3, -1)))
    both = torch.cat([one - zero, zero], dim=1)
    assert torch.linalg.matrix_rank(both) == (3 if embed_dim is None else embed_dim)
    n_parameters = sum(p.numel() for p in layer.parameters())
    assert n_parameters == (2 * 3 * 5 if embed_dim is None else 3 * embed_dim + embed_dim * 2 * 5)


def test_small_embeddings_start_as_large_as_whole_ones():
    for embed_dim in (1, 8, 64):
        layer = ModalityEmbedding(400, 300, embed_dim)
        shift = layer(torch.zeros(1, 300))
        assert shift.square().mean().item() == pytest.approx(1, rel=0.25)


def test_a_shared_network_is_an_embedding_between_layers():
    network = SharedNetwork(3, nn.Linear(2, 5), nn.Sequential(nn.Tanh(), nn.Linear(5, 4)), embed_dim=2)
    x = torch.randn(6, 3, 2)
    embedding = ModalityEmbedding(3, 5, 2)
    embedding.load_state_dict({name: network.state_dict()[name] for name in embedding.state_dict()})
    torch.testing.assert_close(network(x), network.rest(embedding(network.first(x))))


def test_concatenation():
    parts = torch.randn(4, 2, 3), torch.randn(4, 2, 1)
    joined = ConcatLayer()(parts)
    assert joined[..., :3].equal(parts[0]) and joined[..., 3:].equal(parts[1])


def test_stacked_layers_start_as_linear_ones():
    layer = StackedLinear(20, 25, 100)
    for parameter in layer.parameters():
        assert parameter.abs().max() <= 1 / 5
        assert parameter.std().item() == pytest.approx(1 / 5 / 3**0.5, rel=0.1)
        assert parameter.mean().item() == pytest.approx(0, abs=0.01)
    assert FromPixel(3, 5, 4).bias is not None, "as torch's layers have one"


def test_networks_with_batch_norm_or_dropout_do_not_repeat_their_outputs():
    assert is_repeatable(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    for layer in (nn.BatchNorm1d(3), nn.Dropout(), nn.Dropout2d()):
        assert not is_repeatable(nn.Sequential(nn.ReLU(), nn.Sequential(layer, nn.ReLU())))


def test_batch_norm_is_found_wherever_it_stands():
    assert not has_batch_norm(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    for norm in (nn.BatchNorm1d(3), nn.BatchNorm2d(3)):
        assert has_batch_norm(norm) and has_batch_norm(nn.Sequential(nn.ReLU(), nn.Sequential(norm, nn.ReLU())))
