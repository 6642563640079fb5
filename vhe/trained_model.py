"""What sample.py, loglike.py and analyse.py begin with: a trained model, and the characters to test it on."""

from typing import Any

from common.checkpoints import load_config
from reports.options import ModelConfig
from vhe.data import Characters, load
from vhe.framework import VHE


def load_trained(config: ModelConfig) -> tuple[VHE, dict[str, Any]]:
    """Load the model that `config.model` names, on the chosen device, and the options of its training."""
    return config.trained_model("vhe"), load_config(config.model, "vhe")


def load_test(config: ModelConfig, trained: dict[str, Any]) -> Characters:
    """Load the test characters: the alphabets that the training with these options left out."""
    test_alphabets = [] if config.demo else trained["test_alphabets"]
    return load("test", config, test_alphabets)
