"""Training: the native loop, its optimizers and schedules. The configs here import no torch."""

from clew.train.config import AdamWConfig, EarlyStoppingConfig, MuonConfig, OptimizerConfig, TrainingConfig
from clew.train.schedules import Constant, Cosine, ScheduleConfig, Wsd

__all__ = [
    "AdamWConfig",
    "Constant",
    "Cosine",
    "EarlyStoppingConfig",
    "MuonConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "TrainingConfig",
    "Wsd",
]
