"""What a teacher cache of top-k logits keeps of a divergence, and what its last outcome hides."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from geodistill.distill.teacher_cache import bucketed, with_tail
from geodistill.experiments.instruction.evaluate import Example, answer_logits
from geodistill.losses import KLDivergenceLoss
from geodistill.losses.logits import KINDS


def divergences_by_top_k(
    teacher: Any, student: Any, examples: list[Example], pad_id: int, sizes: Sequence[int]
) -> pd.DataFrame:
    """Divergences of a student from its teacher on the teacher's top k tokens and all the rest.

    On k + 1 outcomes none exceeds the full one (data processing), and each rises with k.

    Args:
        teacher: a causal language model.
        student: another, of the same tokens.
        examples: at whose answer tokens they are compared.
        pad_id: of their tokenizer.
        sizes: the k to try.

    Returns:
        `k` (the whole vocabulary last), `mass`, the teacher's probability in its top k, and
        "forward", "reverse" and "skew" in nats a token, as `KLDivergenceLoss` defines them.
    """
    found: list[tuple[int, int, list[float]]] = []
    pairs = zip(*(answer_logits(m, examples, pad_id) for m in (teacher, student)), strict=True)
    for (_, _, logits, _), (_, _, other, _) in pairs:
        # In float32 the mass of the rest, 1 - sum, would be noise where the teacher is certain.
        log_p, log_q = logits.double().log_softmax(-1), other.double().log_softmax(-1)
        tokens, vocabulary = log_p.shape
        for k in sizes:
            top, indices = log_p.topk(k, dim=-1)
            values = _divergences(bucketed(log_q, indices), with_tail(top))
            found.append((k, tokens, [float(top.exp().sum(-1).mean()), *values]))
        found.append((vocabulary, tokens, [1.0, *_divergences(log_q, log_p)]))
    table = pd.DataFrame(
        [(k, tokens, *(tokens * value for value in values)) for k, tokens, values in found],
        columns=["k", "tokens", "mass", *KINDS],
    )
    sums = table.groupby("k").sum()
    return sums.div(sums["tokens"], axis=0).drop(columns="tokens").reset_index()


def _divergences(student: Any, teacher: Any) -> list[float]:
    return [float(KLDivergenceLoss(kind)(student, teacher)) for kind in KINDS]
