"""A report as one HTML file that works offline."""

from hiresnet_graph.report.page.page import html_page

__all__ = ["html_page"]
