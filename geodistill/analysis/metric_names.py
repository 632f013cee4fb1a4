"""Metrics known by name: their direction, and whether they lie in 0..1."""

import re

from geodistill.analysis.score_columns import canonical
from geodistill.errors import InputError

CORRECTNESS = {"accuracy", "acc", "correct", "correctness", "em", "exactmatch"}
FROM_LABELS = {  # computed from all labels and predictions of a run, not means over items
    "mcc": "matthews", "matthews": "matthews", "f1": "f1", "pearson": "pearson",
    "spearman": "spearman",
}  # fmt: skip
BOUNDED = {
    "accuracy", "acc", "accnorm", "balancedaccuracy", "top1", "top5", "top1accuracy", "correct",
    "correctness", "em", "exactmatch", "f1", "macrof1", "microf1", "weightedf1", "f1macro",
    "f1micro", "f1weighted", "mcc", "matthews", "kappa", "pearson", "spearman", "rouge1", "rouge2",
    "rougel", "rougelsum", "bleu", "chrf", "meteor", "bertscore", "auc", "auroc", "rocauc",
    "aucroc", "auprc", "prauc", "averageprecision", "map", "mrr", "ndcg", "precision", "recall",
    "specificity", "sensitivity", "iou", "miou", "dice", "agreement", "winrate", "passat1",
    "score", "mainscore",
}  # fmt: skip
HIGHER = BOUNDED | {"loglikelihood", "logprob", "reward", "return", "r2", "psnr", "elo"}
LOWER = {
    "nll", "loss", "crossentropy", "logloss", "perplexity", "ppl", "wordperplexity",
    "byteperplexity", "error", "errorrate", "mse", "mae", "rmse", "rmsle", "mape", "smape", "mase",
    "crps", "squarederror", "wer", "cer", "ter", "fid", "eer", "brier", "kl", "ece", "bitsperbyte",
    "bpb", "bpc", "regret",
}  # fmt: skip
_PREFIXES = ("test", "eval", "val", "valid", "validation", "dev", "train", "mean", "avg")


def metric_key(metric: str) -> str:
    """The name by which a metric is known.

    Example:
        >>> metric_key("eval/acc_norm,none"), metric_key("Test F1"), metric_key("pass@1")
        ('accnorm', 'f1', 'passat1')
        >>> metric_key("f1_score")
        'f1'
    """
    last = metric.partition(",")[0].rpartition("/")[2].rpartition(":")[2].lower()
    for prefix in _PREFIXES:
        for sign in ("_", " ", "-", "."):
            last = last.strip().removeprefix(prefix + sign)
    key = canonical(last)
    shorter = key.removesuffix("score")
    return shorter if shorter in HIGHER | LOWER else key


def is_bounded(metric: str) -> bool:
    """Whether a metric is known to lie in 0..1 (or in 0..100 as a percentage)."""
    return metric_key(metric) in BOUNDED


def has_higher_better(metric: str) -> bool:
    """Whether larger values of a metric are better, by its name or the last word of it.

    Raises:
        InputError: a metric that is not known.

    Example:
        >>> has_higher_better("macro_f1"), has_higher_better("neg_log_loss")
        (True, True)
        >>> has_higher_better("brier_score"), has_higher_better("1 - AUC")
        (False, False)
    """
    name = metric.partition(",")[0].lower()
    if arrow := re.search("[↑↓]", name):
        return arrow[0] == "↑"
    flipped = metric_key(re.sub(r"^(1|100)?\s*-\s*", "", name))
    if re.match(r"(1|100)?\s*-", name) and flipped in HIGHER | LOWER:  # not "1-shot accuracy"
        return flipped in LOWER
    if negated := re.fullmatch(r"neg(?:ative)?[_ -](.+)", name):  # as scikit-learn writes errors
        return not has_higher_better(negated[1])
    last_word = canonical(re.split(r"[\W_]", name)[-1])
    for key in (metric_key(metric), "" if last_word == "score" else last_word):
        if key in HIGHER | LOWER:
            return key in HIGHER
    raise InputError(
        f"metric {metric!r} is unknown: choose --higher or --lower (which is better), or name a "
        "known one by --metric, such as accuracy or nll"
    )
