"""Plans: several runs in an order."""

from clew.plans.executor import Executor, latest_runs
from clew.plans.loading import load_pipeline, pipeline_tree
from clew.plans.pipeline import Pipeline, Stage, is_pipeline, parse_pipeline
from clew.plans.questions import CHOICES, Attendant, Question
from clew.plans.stages import StageResult, start_from
from clew.plans.storage import Plan, find_plan, open_plan

__all__ = [
    "CHOICES",
    "Attendant",
    "Executor",
    "Pipeline",
    "Plan",
    "Question",
    "Stage",
    "StageResult",
    "find_plan",
    "is_pipeline",
    "latest_runs",
    "load_pipeline",
    "open_plan",
    "parse_pipeline",
    "pipeline_tree",
    "start_from",
]
