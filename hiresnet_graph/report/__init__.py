"""Reports of studies: tables, statistics, and their output formats."""

from hiresnet_graph.report.conclusion import conclude
from hiresnet_graph.report.curves import CurvePoint, learning_curves
from hiresnet_graph.report.effects import EdgeEffect, Effects, edge_effects
from hiresnet_graph.report.formats import FORMATS, to_csv, to_json, to_latex, to_markdown
from hiresnet_graph.report.model import AccuracyModel, Contrast, Interval, fit
from hiresnet_graph.report.pareto import ParetoPoint, pareto_front
from hiresnet_graph.report.report import PARTS, Report, available_parts, make_report
from hiresnet_graph.report.scores import Spread
from hiresnet_graph.report.statistics import Comparison, Difference, compare
from hiresnet_graph.report.table import Row, Table, make_table, summarize
from hiresnet_graph.report.tables import ReportTable, report_tables

__all__ = [
    "FORMATS",
    "PARTS",
    "AccuracyModel",
    "Comparison",
    "Contrast",
    "CurvePoint",
    "Difference",
    "EdgeEffect",
    "Effects",
    "Interval",
    "ParetoPoint",
    "Report",
    "ReportTable",
    "Row",
    "Spread",
    "Table",
    "available_parts",
    "compare",
    "conclude",
    "edge_effects",
    "fit",
    "learning_curves",
    "make_report",
    "make_table",
    "pareto_front",
    "report_tables",
    "summarize",
    "to_csv",
    "to_json",
    "to_latex",
    "to_markdown",
]
