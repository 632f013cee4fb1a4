"""Each example runs as it is, learns, and is on the page that shows it."""

import importlib
from statistics import fmean

import pytest
from support.tiny_project import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
pytestmark = [pytest.mark.smoke, pytest.mark.filterwarnings("ignore::FutureWarning")]


@pytest.fixture
def example(monkeypatch):
    """Imports an example by name, as processes that it starts do."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "examples"))
    return importlib.import_module


def check_fall(losses: list[float], *, by: float) -> None:
    """The losses are Procrustes distances, and their last quarter is lower than the first."""
    quarter = len(losses) // 4
    first, last = fmean(losses[:quarter]), fmean(losses[-quarter:])
    assert 0 < last < first - by < 2, (first, last)


def test_examples_are_short_and_on_the_page():
    book = REPOSITORY / "book"
    handbook = (book / "use_it.md").read_text() + (book / "trainers.md").read_text()
    assert len(EXAMPLES) > 6
    for path in EXAMPLES:
        assert len(path.read_text(encoding="utf-8").splitlines()) < 60, path.name
        assert f"```{{literalinclude}} ../examples/{path.name}\n" in handbook, path.name


def test_the_term_of_a_plain_loop_is_switched_on_by_its_weight(example):
    losses = example("plain_loop").main()
    check_fall(losses, by=0.15)
    off = example("plain_loop").main(multiplier=0.0)
    assert off[:17] == losses[:17]  # the warm-up; the first step with the term is the 17th
    assert off[-1] > losses[-1] + 0.2


def test_two_processes_have_the_loss_of_the_joined_batch(example):
    module = example("data_parallel")
    joined, single = module.main(2), module.main(1)
    check_fall(joined, by=0.1)
    assert joined == pytest.approx(single, abs=1e-5)


def test_a_resnet_learns_from_a_vit(example):
    check_fall(example("vision").main(), by=0.1)


def test_a_classifier_resumes_and_has_a_card(example):
    losses, card = example("classifier").main()
    assert len(losses) == 40  # the log of the checkpoint, and the steps after it
    check_fall(losses, by=0.2)
    assert "## Distillation" in card
    assert "KLDivergenceLoss" in card
    assert "ProcrustesLoss[4-2]" in card
    assert "- Steps: 40" in card


def test_a_language_model_learns_by_its_adapter_alone(example):
    pytest.importorskip("peft")
    losses, trained, weights = example("language_model").main()
    check_fall(losses, by=0.02)
    assert 0 < trained < weights / 5


@pytest.mark.parametrize("name", ["SFTTrainer", "GKDTrainer", "DistillationTrainer"])
def test_trl_trainers_learn(name, example):
    pytest.importorskip("trl")
    module = example("trl_trainers")
    check_fall(module.main(getattr(module, name)), by=0.02)


def test_embeddings_are_distilled_live_as_from_a_cache(example):
    module = example("embeddings")
    live, cached = module.main(), module.main(cached=True)
    check_fall(live, by=0.2)
    assert cached[0] == pytest.approx(live[0], abs=2e-3)
    check_fall(cached, by=0.2)
