"""Metrics known by name: their direction, and whether they lie in 0..1."""

import re

from geodistill.analysis.score_columns import canonical
from geodistill.errors import InputError

CORRECTNESS = {"accuracy", "acc", "correct", "correctness", "em", "exactmatch"}
FROM_LABELS = {  # computed from all labels and predictions of a run, not means over items
    "mcc": "matthews", "matthews": "matthews", "f1": "f1", "pearson": "pearson",
    "spearman": "spearman", "matthewscorrelation": "matthews",
}  # fmt: skip
BOUNDED = {
    "accuracy", "acc", "accnorm", "balancedaccuracy", "top1", "top5", "top1accuracy", "correct",
    "correctness", "em", "exactmatch", "f1", "macrof1", "microf1", "weightedf1", "f1macro",
    "f1micro", "f1weighted", "mcc", "matthews", "kappa", "pearson", "spearman", "rouge1", "rouge2",
    "rougel", "rougelsum", "bleu", "chrf", "meteor", "bertscore", "auc", "auroc", "rocauc",
    "aucroc", "auprc", "prauc", "averageprecision", "map", "mrr", "ndcg", "precision", "recall",
    "specificity", "sensitivity", "iou", "miou", "dice", "agreement", "winrate", "passat1",
    "score", "mainscore", "matthewscorrelation",
}  # fmt: skip
HIGHER = BOUNDED | {"loglikelihood", "logprob", "reward", "return", "r2", "psnr", "elo"}
LOWER = {
    "nll", "loss", "crossentropy", "logloss", "perplexity", "ppl", "wordperplexity",
    "byteperplexity", "error", "errorrate", "mse", "mae", "rmse", "rmsle", "mape", "smape", "mase",
    "crps", "squarederror", "wer", "cer", "ter", "fid", "eer", "brier", "kl", "ece", "bitsperbyte",
    "bpb", "bpc", "regret",
}  # fmt: skip
_PREFIX = re.compile(r"^((test|eval|val|valid|validation|dev|train|mean|avg)[_ .-]\s*)+")
_DASHES = str.maketrans(dict.fromkeys("−–—‐‑", "-"))
_REVERSING = {
    "minus", "inverse", "inverted", "inv", "reverse", "reversed", "reciprocal", "complement",
    "negated", "flipped", "drop", "decrease", "decline",
}  # fmt: skip


def metric_key(metric: str) -> str:
    """The name by which a metric is known.

    Example:
        >>> metric_key("eval/acc_norm,none"), metric_key("Test F1"), metric_key("pass@1")
        ('accnorm', 'f1', 'passat1')
        >>> metric_key("f1_score")
        'f1'
    """
    key = canonical(_without_prefix(metric.partition(",")[0]))
    shorter = key.removesuffix("score")
    return shorter if shorter in HIGHER | LOWER else key


def _without_prefix(name: str) -> str:
    """`eval/test_f1` as `f1`."""
    return _PREFIX.sub("", name.rpartition("/")[2].rpartition(":")[2].lower().strip())


def is_bounded(metric: str) -> bool:
    """Whether a metric is known to lie in 0..1 (or in 0..100 as a percentage)."""
    return metric_key(metric) in BOUNDED


def has_higher_better(metric: str) -> bool:
    """Whether larger values of a metric are better, by its name or the last word of it.

    Raises:
        InputError: a metric that is not known, or whose name has a word that may reverse it.

    Example:
        >>> has_higher_better("macro_f1"), has_higher_better("neg_log_loss")
        (True, True)
        >>> has_higher_better("brier_score"), has_higher_better("1 - AUC")
        (False, False)
    """
    name = metric.partition(",")[0].lower().translate(_DASHES).strip()
    if arrow := re.search("[↑↓]", name):
        return arrow[0] == "↑"
    if sign := re.match(r"(1(\.0*)?|100)?\s*-\s*", name):  # but not that of "1-shot accuracy"
        rest = name[sign.end() :]
        if not sign[1] or sign[0].endswith(" ") or metric_key(rest) in HIGHER | LOWER:
            return not has_higher_better(rest)
    if negated := re.fullmatch(r"neg(?:ative)?[_ -](.+)", _without_prefix(name)):
        return not has_higher_better(negated[1])  # as scikit-learn writes errors
    words = [canonical(word) for word in re.split(r"[\W_]", name)]
    last_word = "" if words[-1] == "score" or _REVERSING & set(words) else words[-1]
    for key in (metric_key(metric), last_word):
        if key in HIGHER | LOWER:
            return key in HIGHER
    raise InputError(
        f"metric {metric!r} is unknown: choose --higher or --lower (which is better), or name a "
        "known one by --metric, such as accuracy or nll"
    )
