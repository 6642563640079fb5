"""The bounds of the papers.

An objective's `bound(inputs, beta)` is what training maximises, per example; calling the objective gives the scalar
loss. With all weights and beta at 1 the bound's value is in nats, and its class says what it bounds.
"""

from common.objectives.base import Bound, MultimodalObjective, Objective
from common.objectives.chain_rule import ArElbo
from common.objectives.crossed import DmvaeElbo, TelboElbo
from common.objectives.elbo import MvaeElbo, StandardElbo, SumOfElbos
from common.objectives.energy import EnergyIwaeElbo
from common.objectives.importance import DregIwaeElbo, IwaeElbo, StlElbo
from common.objectives.joint import CrmvaeElbo, JmvaeElbo, JnfElbo, MvtcaeElbo
from common.objectives.mixture import MmjsdElbo, MmvaeElbo, ReweightedElbo

__all__ = [
    "ArElbo",
    "Bound",
    "CrmvaeElbo",
    "DmvaeElbo",
    "DregIwaeElbo",
    "EnergyIwaeElbo",
    "IwaeElbo",
    "JmvaeElbo",
    "JnfElbo",
    "MmjsdElbo",
    "MmvaeElbo",
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
