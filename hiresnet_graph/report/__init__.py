"""What the runs of a folder have in common and how they differ, as a table."""

from hiresnet_graph.report.formats import FORMATS, cells, to_csv, to_json, to_markdown
from hiresnet_graph.report.table import Row, Spread, Table, summarize

__all__ = ["FORMATS", "Row", "Spread", "Table", "cells", "summarize", "to_csv", "to_json", "to_markdown"]
