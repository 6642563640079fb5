"""Runs: options, the command line, save-dirs, devices, steps and the training loop."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["command_line", "devices", "earlier_runs", "options", "parallel", "runs"],
    submod_attrs={
        "command_line": ["run_from_command_line"],
        "experiment": ["Experiment", "objective_of", "run"],
        "loop": ["Trainer"],
    },
)
