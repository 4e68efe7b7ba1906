"""Training: the native loop, its optimizer and schedules. The configs here import no torch."""

from clew.train.config import AdamWConfig, TrainingConfig
from clew.train.schedules import Constant, Cosine, ScheduleConfig, Wsd

__all__ = ["AdamWConfig", "Constant", "Cosine", "ScheduleConfig", "TrainingConfig", "Wsd"]
