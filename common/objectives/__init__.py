"""The bounds of the papers.

An objective's `bound(inputs, beta)` is what training maximises, per example; calling the objective gives the scalar
loss. With all weights and beta at 1 the bound's value is in nats, and its class says what it bounds.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "base": ["Bound", "MultimodalObjective", "Objective"],
        "elbo": ["MvaeElbo", "StandardElbo", "SumOfElbos"],
        "crossed": ["DmvaeElbo", "TelboElbo"],
        "mixture": ["MmjsdElbo", "MmvaeElbo", "ReweightedElbo"],
        "importance": ["IwaeElbo", "StlElbo"],
        "dreg": ["DregIwaeElbo"],
        "energy": ["EnergyIwaeElbo"],
        "chain_rule": ["ArElbo"],
        "joint": ["CrmvaeElbo", "JmvaeElbo", "JnfElbo", "MvtcaeElbo"],
    },
)
