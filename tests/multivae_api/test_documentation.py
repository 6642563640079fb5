"""The examples of MultiVae's documentation run with only their imports changed.

They are literal: test_package.py finds each line in the package's sources. What an example leaves to its reader, such
as test_set, is defined before it. The datasets' examples are no Python as they stand: "# your code" is filled in, and
commas are taken out of comments.
"""

from common.models import MMVAE, MMVAEConfig
from multivae_api import IncompleteDataset, MultimodalBaseDataset

import torch
from torch import nn
from torch.utils.data import DataLoader

PREDICT = """
predictions = model.predict(test_set, cond_mod = ['modality1', 'modality2'], gen_mod='modality3')
predictions.modality3
"""
DECODER_PARAMETERS = """
decoder_dist_params =  {'mod1' : {"scale" : 0.75}}
"""
ENCODER = """
from multivae_api import BaseEncoder
from multivae_api import ModelOutput

class My_Encoder(BaseEncoder):

    def __init__(self):
        BaseEncoder.__init__(self)
        # your code

    def forward(self, x: torch.Tensor):
        # your code
        output = ModelOutput(
            embedding=embedding,
            log_covariance=log_var # for VAE based models
        )
        return output
"""
DECODER = """
from multivae_api import BaseDecoder
from multivae_api import ModelOutput

class My_decoder(BaseDecoder):

   def __init__(self):
       BaseDecoder.__init__(self)
       # your code

   def forward(self, z: torch.Tensor):
       # your code
       output = ModelOutput(
            reconstruction=reconstruction
        )
       return output
"""
INCOMPLETE_DATASET = """
from multivae_api import IncompleteDataset, DatasetOutput

class MyDataset(IncompleteDataset):
    def __init__(self, my_arguments):
        # your code

    def __getitem__(self, index):
        # your code
        your_data = {
            'modality_name_1' :  ....
            'modality_name_2' : ...
            }
        # Warning : if 'modality_name_2' is unavailable for this index
        # Artificially fill the value data['modality_name_2'] with
        # a zero-tensor (or any value you want, it doesn't matter) OF THE RIGHT SHAPE.
        # Otherwise MultiVae models won't work.

        your_masks = { 'modality_name_1' : True,
                        'modality_name_2' : False # set to False is the modality is unavailable.
            }


        return DatasetOutput(
                    data = your_data # must be a Dict[str, Tensor],
                   masks = your_masks # must be a Dict[str, 1d Tensor],
                    labels = your_labels # optional : don't add this field if you don't have labels
    )
"""
EXAMPLES = (PREDICT, DECODER_PARAMETERS, ENCODER, DECODER, INCOMPLETE_DATASET)


def run(code, fillings=(), **names):
    """Run an example, with each of the fillings, (what is there, what to put there once), in turn."""
    for gap, filling in fillings:
        assert gap in code
        code = code.replace(gap, filling, 1)
    names["torch"] = torch
    exec(code, names)
    return names


def predictions_of_examples(n):
    dims = {f"modality{i}": (i,) for i in (1, 2, 3)}
    config = MMVAEConfig(n_modalities=3, latent_dim=2, input_dims=dims)
    return MMVAE(config), MultimodalBaseDataset({name: torch.randn(n, *shape) for name, shape in dims.items()})


def test_the_documented_prediction_runs():
    model, test_set = predictions_of_examples(7)
    predictions = run(PREDICT, model=model, test_set=test_set)["predictions"]
    assert list(predictions) == ["modality3"] and predictions.modality3.shape == (7, 3)


def test_the_scale_of_a_decoder():
    params = run(DECODER_PARAMETERS)["decoder_dist_params"]
    model = MMVAE(MMVAEConfig(1, input_dims={"mod1": (2,)}, decoder_dist_params=params))
    assert model.decode(torch.zeros(1, 10))["mod1"].stddev.unique().item() == 0.75


def test_the_documented_networks_are_taken():
    mu, log_var, x = torch.randn(5, 3), torch.zeros(5, 3), torch.randn(1, 2)
    encoder = run(ENCODER, embedding=mu, log_var=log_var)["My_Encoder"]()
    decoder = run(DECODER, reconstruction=x)["My_decoder"]()
    config = MMVAEConfig(n_modalities=1, latent_dim=3, prior_and_posterior_dist="normal")
    model = MMVAE(model_config=config, encoders={"a": encoder}, decoders={"a": decoder})
    assert isinstance(encoder, nn.Module)
    assert torch.equal(model.encode({"a": torch.zeros(5, 2)}, return_mean=True).z, mu)
    assert torch.equal(model.decode(model.generate_from_prior(1)).a, x)


IN_COMMENTS = [(f"# must be a Dict[str, {kind}],", ",") for kind in ("Tensor", "1d Tensor")]


def test_an_incomplete_dataset():
    fillings = [
        ("# your code", "self.data, self.masks = my_arguments"),
        ("# your code", "your_labels = index"),
        ("....", "self.data['modality_name_1'][index],"),
        (": ...", ": torch.zeros(2)"),
        *IN_COMMENTS,
    ]
    data = {"modality_name_1": torch.randn(6, 3), "modality_name_2": torch.full((6, 2), 1e6)}
    dataset = run(INCOMPLETE_DATASET, fillings)["MyDataset"]((data, {}))
    assert len(dataset) == 6
    batch = next(iter(DataLoader(dataset, batch_size=4, shuffle=False)))
    assert batch.labels.tolist() == batch["labels"].tolist() == [0, 1, 2, 3]
    assert batch.masks["modality_name_1"].all() and not batch.masks["modality_name_2"].any()
    config = MMVAEConfig(2, latent_dim=2, input_dims={"modality_name_1": (3,), "modality_name_2": (2,)})
    model, losses = MMVAE(config), []
    for inputs in (batch, {"modality_name_1": data["modality_name_1"][:4]}):
        torch.manual_seed(0)
        losses.append(model(inputs).loss)
    assert torch.equal(*losses)


def test_datasets_of_tensors_and_arrays():
    data = {"a": torch.randn(5, 3), "b": torch.randn(5, 2).numpy()}
    masks = {"a": torch.ones(5, dtype=torch.bool), "b": torch.arange(5) < 2}
    dataset = IncompleteDataset(data, masks, labels=torch.arange(5))
    example = dataset[3]
    assert list(example) == ["data", "labels", "masks"] and example.labels == 3 and not example.masks["b"]
    model = MMVAE(MMVAEConfig(2, latent_dim=2, input_dims={"a": (3,), "b": (2,)}))
    means = model.encode(dataset, return_mean=True).z
    torch.testing.assert_close(means[:2], model.encode(MultimodalBaseDataset(data)[:2], return_mean=True).z)
    torch.testing.assert_close(means[2:], model.encode({"a": data["a"]}, "a", return_mean=True).z[2:])
    assert list(MultimodalBaseDataset(data)[0]) == ["data"]
    batch = dataset[:]
    model(batch)
    assert set(batch.data) == {"a", "b"}, "inputs stay as they are"
