"""The instruction study with its real teacher, in its smallest settings."""

import pytest
import torch
from support.own_cache import own_cache

from geodistill.distill import students
from geodistill.experiments.instruction.run import run_instruction
from geodistill.experiments.instruction.settings import InstructionSettings
from geodistill.experiments.instruction.setup import prepare_instruction

SETTINGS = InstructionSettings(
    task="embedded", teacher="smollm2", n_train=16, n_test=8, epochs=1.0, batch_size=8, width=64,
    layers=1, max_length=160, max_new_tokens=4,
)  # fmt: skip
pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("instruction")]


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("instruction") / "cache"
    with own_cache(folder), pytest.MonkeyPatch.context() as patch:
        setup = prepare_instruction(SETTINGS)
        # Seconds for each student, and the same for all of one teacher and width.
        embeddings = setup.teacher.get_input_embeddings().weight.detach()
        directions = students.principal_directions(embeddings, setup.settings.width)
        patch.setattr(students, "principal_directions", lambda *given: directions)
        yield setup


def test_the_cache_holds_the_teachers_outputs_at_the_answers(real):
    example = real.train[3]
    with torch.no_grad():
        out = real.teacher(torch.tensor([example["input_ids"]]), output_hidden_states=True)
    mask = torch.tensor(example["labels"])[1:] != -100
    expected = out.logits[0, :-1][mask].log_softmax(-1).topk(real.settings.top_k)
    full_mask = torch.cat([mask, torch.tensor([False])])[None]
    layer = real.train_cache.manifest["layers"][0]
    stored = real.train_cache.lookup(torch.tensor([3]), full_mask, [layer])
    assert torch.allclose(stored.top[0], expected.values, atol=1e-3)
    features = out.hidden_states[-1][0, :-1][mask]
    assert torch.allclose(stored.features[layer][full_mask], features, rtol=2e-2, atol=2e-2)
    assert len(features) == sum(label != -100 for label in example["labels"]) > 1


def test_train_and_test_share_no_source(real):
    assert len(real.train) == 16
    assert len(real.test) == 8
    assert not {e["source"] for e in real.train} & {e["source"] for e in real.test}


def test_a_method_of_each_kind_runs(real):
    methods = ("sft", "kd", "kd+procrustes", "kd+gram")
    runs = {method: run_instruction(real, method, 0)[0] for method in methods}
    assert len({tuple(run.items["nll"]) for run in runs.values()}) == 4
    for run in runs.values():
        assert 0 < run.metrics["nll"] < 20
        assert len(run.items) == 8
