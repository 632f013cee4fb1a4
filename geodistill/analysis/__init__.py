"""Statistics, tables and figures of stored results and of any score table; never imports torch.

`score_tables` and `stored_results` read and check tables, `stats` holds the tests, `report` the
tables and texts, `figures` the plots. The names below load their module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodistill.analysis.figures.style import method_style
    from geodistill.analysis.report.comparison_report import compare_all
    from geodistill.analysis.report.export import report_table
    from geodistill.analysis.score_tables import read_scores
    from geodistill.analysis.stats.compare import compare, compare_family
    from geodistill.analysis.stats.coverage import simulate_items
    from geodistill.analysis.stats.power import Design, components_from_sd
    from geodistill.analysis.stats.sensitivity import sensitivity_table
    from geodistill.analysis.stats.verdict import required_design, verdict
    from geodistill.analysis.stored_results import load_items, load_rows

_MODULES = {
    "Design": "stats.power",
    "compare": "stats.compare",
    "compare_all": "report.comparison_report",
    "compare_family": "stats.compare",
    "components_from_sd": "stats.power",
    "load_items": "stored_results",
    "load_rows": "stored_results",
    "method_style": "figures.style",
    "read_scores": "score_tables",
    "report_table": "report.export",
    "required_design": "stats.verdict",
    "sensitivity_table": "stats.sensitivity",
    "simulate_items": "stats.coverage",
    "verdict": "stats.verdict",
}
__all__ = [
    "Design",
    "compare",
    "compare_all",
    "compare_family",
    "components_from_sd",
    "load_items",
    "load_rows",
    "method_style",
    "read_scores",
    "report_table",
    "required_design",
    "sensitivity_table",
    "simulate_items",
    "verdict",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
