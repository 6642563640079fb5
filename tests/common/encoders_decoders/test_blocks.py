from common.encoders_decoders import (
    ConcatLayer,
    ModalityEmbedding,
    SharedNetwork,
    StackedLinear,
    has_batch_norm,
    is_repeatable,
    outputs,
)

import pytest
import torch
from torch import nn


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


def test_networks_with_batch_norm_or_dropout_do_not_repeat_their_outputs():
    assert is_repeatable(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    for layer in (nn.BatchNorm1d(3), nn.Dropout(), nn.Dropout2d(), nn.GRU(3, 3, num_layers=2, dropout=0.1)):
        assert not is_repeatable(nn.Sequential(nn.ReLU(), nn.Sequential(layer, nn.ReLU())))


def test_a_single_row_takes_the_running_statistics_and_leaves_the_modes_as_they_are():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout())
    network[2].eval()  # frozen by the caller
    outputs(network, torch.randn(1, 2))
    assert [layer.training for layer in network] == [True, True, False]
    with pytest.raises(RuntimeError):
        outputs(network, torch.randn(1, 5))
    assert network.training and network[1].training


def test_batch_norm_is_found_wherever_it_stands():
    assert not has_batch_norm(nn.Sequential(nn.Linear(2, 3), nn.LayerNorm(3)))
    for norm in (nn.BatchNorm1d(3), nn.BatchNorm2d(3)):
        assert has_batch_norm(norm) and has_batch_norm(nn.Sequential(nn.ReLU(), nn.Sequential(norm, nn.ReLU())))
