"""Models in folders: what was saved comes back, and nothing in a folder can run code."""

import json
import re

from common.errors import InputError
from common.models import MMVAE, MMVAEConfig
from tests.multivae_api.test_mmvae import Halves, pair, small

import pytest
import torch
from torch import nn


def own_networks():
    encoders = {"a": nn.Sequential(nn.Flatten(), Halves(nn.Linear(16, 6))), "b": Halves(nn.Linear(6, 6))}
    return encoders, {name: nn.Sequential(nn.Linear(3, 6), nn.Dropout()) for name in ("a", "b")}


def test_what_is_saved_is_loaded(tmp_path):
    model = small(decoders_dist={"a": "laplace"}, decoder_dist_params={"a": {"scale": 0.5}}, beta=0.3)
    with torch.no_grad():
        model.prior.loc += 1
    model.save(tmp_path / "runs" / "mmvae")
    loaded = MMVAE.load_from_folder(str(tmp_path / "runs" / "mmvae"))
    assert loaded.model_config == model.model_config and not loaded.training
    assert sorted(file.name for file in (tmp_path / "runs" / "mmvae").iterdir()) == ["model.pt", "model_config.json"]
    losses = []
    for each in (model, loaded):
        torch.manual_seed(0)
        losses.append(each(pair()).loss)
    assert torch.equal(*losses)


def test_networks_of_the_callers_own_are_given_again(tmp_path):
    torch.manual_seed(0)
    config = MMVAEConfig(n_modalities=2, latent_dim=3)
    model = MMVAE(config, *own_networks())
    model.save(tmp_path)
    encoders, decoders = own_networks()
    loaded = MMVAE.load_from_folder(tmp_path, encoders, decoders=decoders)
    z = torch.randn(5, 3)
    torch.testing.assert_close(loaded.decode(z)["b"].mean, model.eval().decode(z)["b"].mean)
    with pytest.raises(InputError, match="decoders of its own, whose code is not saved: give .* decoders="):
        MMVAE.load_from_folder(tmp_path, encoders)
    decoders["b"] = nn.Linear(3, 7)
    with pytest.raises(InputError, match="does not fit the networks: .*: give those that were saved$") as error:
        MMVAE.load_from_folder(tmp_path, encoders, decoders)
    assert "\n" not in str(error.value)


def test_functions_are_not_saved(tmp_path):
    with pytest.raises(InputError, match="decoders_dist of b is a function, which no file keeps"):
        small(decoders_dist={"b": lambda output, x: output - x}).save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Code:
    def __reduce__(self):
        return (pytest.fail, ("code of the file was run",))


def change(folder, **options):
    path = folder / "model_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | options))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "model_config.json").unlink(), "model_config.json is missing: give a folder"),
        (lambda folder: (folder / "model_config.json").write_text("{"), "model_config.json is damaged"),
        (lambda folder: change(folder, name="MVAEConfig"), "is the configuration of MVAEConfig, not of MMVAEConfig"),
        (lambda folder: change(folder, depth=3), "has the unknown options depth"),
        (lambda folder: change(folder, loss="elbo"), "Invalid enum value 'elbo' - at `$.loss`"),
        (lambda folder: (folder / "model.pt").write_bytes(b"?"), "model.pt is damaged or not a checkpoint"),
        (lambda folder: torch.save({"model_state_dict": Code()}, folder / "model.pt"), "model.pt is refused: it holds"),
        (lambda folder: change(folder, latent_dim=4), "does not fit the networks"),
    ],
)
def test_folders_that_cannot_be_loaded(tmp_path, damage, message):
    small().save(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=re.escape(message)) as error:
        MMVAE.load_from_folder(tmp_path)
    assert "\n" not in str(error.value)
