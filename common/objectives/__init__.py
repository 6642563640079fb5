"""The bounds of the papers.

An objective's `bound(inputs, beta)` is what training maximises, per example; calling the objective gives the scalar
loss. With all weights and beta at 1 the bound's value is in nats, and its class says what it bounds.
"""

from common.objectives.base import Bound, MultimodalObjective, Objective
from common.objectives.chain_rule import ArElbo
from common.objectives.crossed import DmvaeElbo, TelboElbo
from common.objectives.disentangled import IdmvaeElbo
from common.objectives.elbo import MvaeElbo, StandardElbo, SumOfElbos
from common.objectives.energy import EnergyIwaeElbo
from common.objectives.importance import DregIwaeElbo, IwaeElbo, StlElbo
from common.objectives.joint import CrmvaeElbo, JmvaeElbo, JnfElbo, MvtcaeElbo
from common.objectives.mixture import CodeElbo, MmjsdElbo, MmvaeElbo, MmvmElbo, ReweightedElbo

__all__ = [
    "ArElbo",
    "Bound",
    "CodeElbo",
    "CrmvaeElbo",
    "DmvaeElbo",
    "DregIwaeElbo",
    "EnergyIwaeElbo",
    "IdmvaeElbo",
    "IwaeElbo",
    "JmvaeElbo",
    "JnfElbo",
    "MmjsdElbo",
    "MmvaeElbo",
    "MmvmElbo",
    "MultimodalObjective",
    "MvaeElbo",
    "MvtcaeElbo",
    "Objective",
    "ReweightedElbo",
    "StandardElbo",
    "StlElbo",
    "SumOfElbos",
    "TelboElbo",
]
