"""Reports of runs and pipelines, as Markdown with figures beside it and as one HTML page that needs nothing else."""

from clew.reports.report import ReportFiles, write_pipeline_report, write_run_report
from clew.reports.stages import StageView

__all__ = ["ReportFiles", "StageView", "write_pipeline_report", "write_run_report"]
