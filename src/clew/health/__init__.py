"""How a training is doing: numbers from the device in one transfer, and a short verdict with what to do.

A trainer keeps a :class:`clew.health.probe.HealthProbe`, or calls :func:`clew.health.report.health_report` itself.
What is imported here needs no torch: whoever only reads reports does without.
"""

from clew.health.clock import StepClock
from clew.health.spikes import Spike, find_spikes
from clew.health.verdict import Finding, verdict

__all__ = ["Finding", "Spike", "StepClock", "find_spikes", "verdict"]
