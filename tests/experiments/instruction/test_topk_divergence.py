"""Divergences on the top k tokens and the rest, against loops over tokens and positions."""

import math

import pytest
import torch
from support.tiny_instructions import Letters, row
from support.tiny_models import tiny_opt

from geodistill.experiments.instruction.topk_divergence import divergences_by_top_k
from geodistill.tasks.prompts import encode

ROWS = [row(str(i), "say" + " so" * i, "ab cd"[: i + 1]) for i in range(4)]
EXAMPLES = [encode(r, Letters()) for r in ROWS]
VOCABULARY = 30


def sharp(seed):
    model = tiny_opt(seed, vocabulary=VOCABULARY).eval()
    torch.manual_seed(seed)
    model.lm_head.weight = torch.nn.Parameter(2 * torch.randn(VOCABULARY, 32))
    return model


@torch.no_grad()
def distributions(model):
    """Of every answer token, one forward pass each, in float64."""
    found = []
    for example in EXAMPLES:
        for place, label in enumerate(example["labels"]):
            if label != -100:
                logits = model(torch.tensor([example["input_ids"][:place]])).logits[0, -1]
                found.append(logits.double().softmax(-1).tolist())
    return found


def merged(p, q, k):
    """p and q on the k tokens that p has most of, and the rest."""
    top = sorted(range(len(p)), key=p.__getitem__, reverse=True)[:k]
    return tuple([[*(a[i] for i in top), 1 - sum(a[i] for i in top)] for a in (p, q)])


def kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def test_divergences_are_those_of_loops_over_outcomes():
    teacher, student = sharp(0), sharp(1)
    found = divergences_by_top_k(teacher, student, EXAMPLES, 0, (1, 5)).set_index("k")
    pairs = list(zip(distributions(teacher), distributions(student), strict=True))
    assert len(pairs) > 12
    assert found.index.tolist() == [1, 5, VOCABULARY]
    for k in found.index:
        both = [merged(p, q, k) if k < VOCABULARY else (p, q) for p, q in pairs]
        skew = [[0.1 * a + 0.9 * b for a, b in zip(p, q, strict=True)] for p, q in both]
        expected = {
            "mass": sum(sum(p[:k]) if k < VOCABULARY else 1 for p, _ in both),
            "forward": sum(kl(p, q) for p, q in both),
            "reverse": sum(kl(q, p) for p, q in both),
            "skew": sum(kl(p, m) for (p, _), m in zip(both, skew, strict=True)),
        }
        for name, value in expected.items():
            assert found.loc[k, name] == pytest.approx(value / len(pairs), rel=1e-4), (k, name)


def test_more_outcomes_show_more_and_none_shows_more_than_all():
    found = divergences_by_top_k(sharp(0), sharp(1), EXAMPLES, 0, (1, 2, 4, 8, 16))
    for name in ("mass", "forward", "reverse", "skew"):
        assert found[name].is_monotonic_increasing
        assert found[name].iloc[0] < 0.9 * found[name].iloc[-1]
    same = divergences_by_top_k(sharp(0), sharp(0), EXAMPLES, 0, (4,))
    assert same[["forward", "reverse", "skew"]].abs().max(axis=None) < 1e-9
