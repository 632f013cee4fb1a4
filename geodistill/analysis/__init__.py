"""Statistics, tables and figures of stored results and of any score table; never imports torch.

`score_tables` and `stored_results` read and check tables, `stats` holds the tests, `report` the
tables and texts, `figures` the plots. The names below load their module when first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodistill.analysis.figures.style import method_style as method_style
    from geodistill.analysis.report.comparison_report import compare_all as compare_all
    from geodistill.analysis.report.export import report_table as report_table
    from geodistill.analysis.report.levels import level_table as level_table
    from geodistill.analysis.score_tables import read_scores as read_scores
    from geodistill.analysis.stats.collapse import find_collapsed as find_collapsed
    from geodistill.analysis.stats.compare import compare as compare
    from geodistill.analysis.stats.compare import compare_family as compare_family
    from geodistill.analysis.stats.contrasts import leave_one_task_out as leave_one_task_out
    from geodistill.analysis.stats.contrasts import two_by_two as two_by_two
    from geodistill.analysis.stats.coverage import simulate_items as simulate_items
    from geodistill.analysis.stats.power import Design as Design
    from geodistill.analysis.stats.power import components_from_sd as components_from_sd
    from geodistill.analysis.stats.sensitivity import sensitivity_table as sensitivity_table
    from geodistill.analysis.stats.verdict import required_design as required_design
    from geodistill.analysis.stats.verdict import verdict as verdict
    from geodistill.analysis.stored_results import load_items as load_items
    from geodistill.analysis.stored_results import load_rows as load_rows

_MODULES = {
    "Design": "stats.power",
    "compare": "stats.compare",
    "compare_all": "report.comparison_report",
    "compare_family": "stats.compare",
    "components_from_sd": "stats.power",
    "find_collapsed": "stats.collapse",
    "leave_one_task_out": "stats.contrasts",
    "level_table": "report.levels",
    "load_items": "stored_results",
    "load_rows": "stored_results",
    "method_style": "figures.style",
    "read_scores": "score_tables",
    "report_table": "report.export",
    "required_design": "stats.verdict",
    "sensitivity_table": "stats.sensitivity",
    "simulate_items": "stats.coverage",
    "two_by_two": "stats.contrasts",
    "verdict": "stats.verdict",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
