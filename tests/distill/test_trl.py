"""The mixin over TRL's trainers: SFT, and those that run a teacher, which it must not run again."""

import inspect

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from support.tiny_models import logged, moved, procrustes, tiny_opt, weights
from support.tiny_tokenizers import byte_tokenizer as tokenizer
from torch.nn.functional import cross_entropy

from geodistill.distill import FeatureDistillation, FeatureTerm
from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss, ProcrustesLoss, ProjectionLoss

trl = pytest.importorskip("trl")
from trl.experimental.gkd import GKDConfig, GKDTrainer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
WEIGHT = 2.0
PAIRS = Dataset.from_list(
    [
        {"prompt": "Add 1 and 2.", "completion": " Three."},
        {"prompt": "Name it.", "completion": " A cat."},
        {"prompt": "Say yes.", "completion": " Yes, of course."},
        {"prompt": "Who?", "completion": " Me."},
    ]
    * 2
)
CHATML = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
CHATS = Dataset.from_list(
    [
        {
            "messages": [
                {"role": "user", "content": row["prompt"]},
                {"role": "assistant", "content": row["completion"]},
            ]
        }
        for row in PAIRS
    ]
)


class SFT(FeatureDistillation, trl.SFTTrainer):
    """TRL's supervised fine-tuning with feature terms."""


class GKD(FeatureDistillation, GKDTrainer):
    """TRL's generalised knowledge distillation with feature terms."""


class OnPolicy(FeatureDistillation, trl.DistillationTrainer):
    """TRL's stable distillation on the student's own completions with feature terms."""


def model(seed, width=32):
    """Made anew, not copied: TRL binds a forward to its model that a copy would call."""
    return tiny_opt(seed, width=width, vocabulary=300, positions=64)


def settings(folder, **more):
    fixed = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "max_steps": 2,
        "learning_rate": 0.01,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "lr_scheduler_type": "constant",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
        "max_length": 48,
    }
    return {**fixed, **more}


def sft(folder, student, terms=(), teacher=None, logit_loss=None, **more):
    return SFT(
        model=student,
        args=trl.SFTConfig(**settings(folder, **more)),
        train_dataset=PAIRS,
        processing_class=tokenizer(),
        teacher_model=teacher,
        terms=terms,
        logit_loss=logit_loss,
    )


def gkd(folder, student, teacher, terms=(), lmbda=0.0, **more):
    return GKD(
        model=student,
        args=GKDConfig(**settings(folder, lmbda=lmbda, max_new_tokens=6, **more)),
        train_dataset=CHATS,
        processing_class=tokenizer(CHATML),
        teacher_model=teacher,
        terms=terms,
    )


def on_policy(folder, student, teacher, terms=(), kind=OnPolicy, **more):
    named = settings(folder, max_completion_length=6, **more)
    del named["max_length"]
    geometry = {"terms": terms} if kind is OnPolicy else {}
    logit_loss = {"logit_loss": named.pop("logit_loss")} if "logit_loss" in named else {}
    return kind(
        model=student,
        args=trl.DistillationConfig(**named),
        train_dataset=PAIRS.select_columns("prompt"),
        eval_dataset=PAIRS.select_columns("prompt"),
        processing_class=tokenizer(),
        teacher_model=teacher,
        **geometry,
        **logit_loss,
    )


def term(loss=None, **more):
    return FeatureTerm(-1, -1, loss or ProcrustesLoss(), weight=WEIGHT, **more)


def counted(module):
    """How often the module is called, as a list that grows."""
    calls = []
    module.register_forward_hook(lambda *_: calls.append(1))
    return calls


def batches_of(trainer, into):
    """Keeps each training batch as the loss receives it."""
    inner = trainer.compute_loss

    def compute_loss(model, inputs, *args, **kwargs):
        into.append({k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)})
        return inner(model, inputs, *args, **kwargs)

    trainer.compute_loss = compute_loss


def by_hand(student, teacher, batch):
    """Cross-entropy, KL to the teacher and geometry at the positions that predict an answer."""
    given = {k: batch[k] for k in ("input_ids", "attention_mask")}
    mine, said = (m(**given, output_hidden_states=True) for m in (student, teacher))
    targets = batch["labels"][:, 1:]
    rows = torch.cat([targets != -100, torch.zeros(len(targets), 1, dtype=torch.bool)], 1)
    nll = cross_entropy(mine.logits[rows], targets[targets != -100])
    p, q = (out.logits[rows].softmax(-1) for out in (said, mine))
    middle = 0.5 * p + 0.5 * q
    jsd = 0.5 * (p * (p / middle).log() + q * (q / middle).log()).sum(-1).mean()
    geometry = procrustes(mine.hidden_states[-1][rows], said.hidden_states[-1][rows].detach())
    return nll, jsd, geometry


def check_first_step(trainer, start, student, base, geometry):
    """The logs hold both losses and their sum; the student has moved by the sum's gradient."""
    assert logged(trainer, "loss/task")[0] == pytest.approx(base.item(), rel=1e-4)
    assert logged(trainer, "loss/ProcrustesLoss[-1--1]")[0] == pytest.approx(
        geometry.item(), rel=1e-4
    )
    total = base + WEIGHT * geometry
    assert logged(trainer, "loss")[0] == pytest.approx(total.item(), rel=1e-4)
    names = dict(start.named_parameters())
    gradients = torch.autograd.grad(total, list(names.values()), allow_unused=True)
    after = weights(student)
    for (name, parameter), gradient in zip(names.items(), gradients, strict=True):
        moved_by = torch.zeros_like(parameter) if gradient is None else 0.01 * gradient
        assert torch.allclose(after[name], parameter - moved_by, atol=2e-6), name


def check_one_step(trainer, student, teacher, base):
    """Loss, its parts and the step against plain PyTorch on the batch that the trainer saw."""
    start, seen = model(1), []
    batches_of(trainer, seen)
    trainer.train()
    losses = by_hand(start, teacher, seen[0])
    expected, geometry = losses[base], losses[2]
    check_first_step(trainer, start, student, expected, geometry)
    return seen[0]


# ---- supervised fine-tuning ----


def test_sft_adds_the_weighted_term_to_its_own_loss(tmp_path):
    student, teacher = model(1), model(2, width=48)
    trainer = sft(tmp_path, student, [term()], teacher, max_steps=1)
    batch = check_one_step(trainer, student, teacher, base=0)
    assert (batch["labels"] == -100).any()  # prompts are masked


def test_sft_runs_each_model_once_a_step(tmp_path):
    student, teacher = model(1), model(2)
    mine, said = counted(student.model), counted(teacher)
    sft(tmp_path, student, [term()], teacher, gradient_checkpointing=False).train()
    assert (len(mine), len(said)) == (2, 2)


def test_sft_without_terms_is_trls_own(tmp_path):
    student, other = model(1), model(1)
    sft(tmp_path, student).train()
    trl.SFTTrainer(
        model=other,
        args=trl.SFTConfig(**settings(tmp_path)),
        train_dataset=PAIRS,
        processing_class=tokenizer(),
    ).train()
    assert moved(weights(student), weights(other)) < 1e-7
    assert moved(weights(model(1)), weights(student)) > 1e-3


def test_sft_under_accumulation_means_over_all_items(tmp_path):
    """Two micro-batches of two: the tokens' mean, and the mean of two geometries."""
    student, teacher = model(1), model(2)
    start, seen = model(1), []
    trainer = sft(
        tmp_path, student, [term()], teacher, max_steps=1,
        per_device_train_batch_size=2, gradient_accumulation_steps=2,
    )  # fmt: skip
    batches_of(trainer, seen)
    trainer.train()
    assert len(seen) == 2
    parts = [by_hand(start, teacher, batch) for batch in seen]
    counts = torch.tensor([int((b["labels"][:, 1:] != -100).sum()) for b in seen])
    assert counts[0] != counts[1]
    nll = (torch.stack([p[0] for p in parts]) * counts).sum() / counts.sum()
    geometry = torch.stack([p[2] for p in parts]).mean()
    assert logged(trainer, "loss")[0] == pytest.approx((nll + WEIGHT * geometry).item(), rel=1e-4)


def test_sft_refuses_a_logit_loss_which_its_fused_head_cannot_train(tmp_path):
    trainer = sft(tmp_path, model(1), teacher=model(2), logit_loss=KLDivergenceLoss())
    with pytest.raises(InputError, match="logit_loss: the trainer below SFT gives logits without"):
        trainer.train()


def four_steps(folder, seed, resume=None):
    student, loss = model(seed), ProjectionLoss(32, 48)
    trainer = sft(
        folder, student, [term(loss, weight_warmup_batches=3)], model(2, width=48), max_steps=4,
        optim="adamw_torch", learning_rate=1e-3, save_strategy="steps", save_steps=2,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=resume)
    return trainer, student, loss


def test_sft_resumes_at_a_checkpoint(tmp_path):
    whole, student, loss = four_steps(tmp_path / "whole", seed=1)
    again, resumed, other = four_steps(
        tmp_path / "resumed", seed=9, resume=str(tmp_path / "whole" / "checkpoint-2")
    )
    assert moved(weights(student), weights(resumed)) < 1e-6
    assert torch.allclose(loss.weight, other.weight, atol=1e-6)
    assert again.term_weights() == pytest.approx(whole.term_weights(), rel=1e-5)
    assert whole.term_weights()["weight/ProjectionLoss[-1--1]"] > 0
    stored = load_file(tmp_path / "whole" / "checkpoint-4" / "model.safetensors")
    assert not any("terms" in name for name in stored)


def test_sft_with_lora_trains_the_adapter_by_the_term(tmp_path):
    from peft import LoraConfig, get_peft_model

    student = get_peft_model(model(1), LoraConfig(r=2, task_type="CAUSAL_LM"))
    trainer = sft(tmp_path, student, [term()], model(2), learning_rate=0.5)
    trainer.task_weight = 0.0
    before = weights(student)
    trainer.train()
    changed = [name for name, p in student.named_parameters() if not p.equal(before[name])]
    assert changed
    assert all("lora" in name for name in changed)


# ---- GRPO ----


@pytest.mark.parametrize("loss_type", ["dapo", "grpo"])
def test_grpo_under_accumulation_is_trls_own_and_takes_terms(tmp_path, loss_type):
    """Its loss is the micro-batch's part of the step's, which nothing may divide again."""

    class GRPO(FeatureDistillation, trl.GRPOTrainer):
        pass

    given = settings(
        tmp_path, gradient_accumulation_steps=2, per_device_train_batch_size=2, num_generations=2,
        max_completion_length=4, loss_type=loss_type, max_steps=1, learning_rate=0.5,
    )  # fmt: skip
    del given["max_length"]

    def trained(kind, **more):
        student = model(1)
        trainer = kind(
            model=student,
            reward_funcs=lambda completion_ids, **_: [
                float(sum(ids) % 7) for ids in completion_ids
            ],
            args=trl.GRPOConfig(**given),
            train_dataset=PAIRS.select_columns("prompt"),
            processing_class=tokenizer(),
            **more,
        )
        trainer.train()
        return trainer, student

    (_, own), (_, plain) = trained(trl.GRPOTrainer), trained(GRPO)
    assert moved(weights(own), weights(plain)) < 1e-7
    assert moved(weights(own), weights(model(1))) > 1e-4
    trainer, student = trained(GRPO, teacher_model=model(2, width=48), terms=[term()])
    assert 0 < logged(trainer, "loss/ProcrustesLoss[-1--1]")[0] < 2
    assert moved(weights(own), weights(student)) > 1e-4


# ---- generalised knowledge distillation ----


def test_gkd_adds_the_weighted_term_to_its_own_loss(tmp_path):
    student, teacher = model(1), model(2, width=48)
    trainer = gkd(tmp_path, student, teacher, [term()], max_steps=1)
    batch = check_one_step(trainer, student, teacher, base=1)
    assert (batch["labels"] == -100).any()


@pytest.mark.parametrize("lmbda", [0.0, 1.0])
def test_gkd_runs_its_teacher_once_a_step(tmp_path, lmbda):
    """Also where the student answers the prompts itself, which costs forwards of the student."""
    student, teacher = model(1), model(2)
    said, before = counted(teacher), weights(teacher)
    trainer = gkd(tmp_path, student, teacher, [term()], lmbda)
    seen = []
    batches_of(trainer, seen)
    trainer.train()
    assert len(said) == 2 == trainer.state.global_step
    assert moved(before, weights(teacher)) == 0
    assert moved(weights(model(1)), weights(student)) > 1e-4


def test_gkd_compares_the_rows_of_the_answers_it_sampled(tmp_path):
    """GKD divides by the number of the data set's answer tokens, before it samples others."""
    student, teacher = model(1), model(2)
    trainer = gkd(
        tmp_path, student, teacher, [term()], 1.0, max_steps=1, per_device_train_batch_size=8
    )
    start, seen = model(1), []
    batches_of(trainer, seen)
    trainer.train()
    (batch,) = seen
    given = trainer.data_collator([CHATS[i] for i in range(8)])
    sampled, items = (int((b["labels"][:, 1:] != -100).sum()) for b in (batch, given))
    assert sampled != items
    _, jsd, geometry = by_hand(start, teacher, batch)
    base = jsd.item() * sampled / items
    assert logged(trainer, "loss/task")[0] == pytest.approx(base, rel=1e-4)
    total = base + WEIGHT * geometry.item()
    assert logged(trainer, "loss")[0] == pytest.approx(total, rel=1e-4)


def test_gkd_resumes_at_a_checkpoint(tmp_path):
    def run(folder, seed, resume=None):
        student = model(seed)
        trainer = gkd(
            folder, student, model(2), [term()], max_steps=2, save_strategy="steps", save_steps=1
        )
        trainer.train(resume_from_checkpoint=resume)
        return student

    whole = run(tmp_path / "whole", 1)
    resumed = run(tmp_path / "resumed", 9, str(tmp_path / "whole" / "checkpoint-1"))
    assert moved(weights(whole), weights(resumed)) < 1e-6


# ---- TRL's DistillationTrainer ----


def completions_by_hand(student, teacher, batch):
    """Summed forward KL and the Procrustes distance at the positions that predict a completion."""
    ids, mask = (
        torch.cat([batch[f"prompt_{name}"], batch[f"completion_{name}"]], 1)
        for name in ("ids", "mask")
    )
    start = batch["prompt_ids"].shape[1] - 1
    kept = batch["completion_mask"].bool()
    mine, said = (
        m(input_ids=ids, attention_mask=mask, output_hidden_states=True) for m in (student, teacher)
    )
    q, p = (out.logits[:, start:-1][kept].log_softmax(-1) for out in (mine, said))
    divergence = (p.exp() * (p - q)).sum()
    rows = [out.hidden_states[-1][:, start:-1][kept] for out in (mine, said)]
    return divergence, procrustes(rows[0], rows[1].detach()), int(kept.sum())


@pytest.mark.parametrize("accumulated", [1, 2])
def test_on_policy_distillation_adds_the_weighted_term(tmp_path, accumulated):
    """One step by hand: KL per token of all micro-batches, the mean of their geometries."""
    student, teacher = model(1), model(2, width=48)
    start, seen = model(1), []
    trainer = on_policy(
        tmp_path, student, teacher, [term()], max_steps=1, beta=0.0,
        per_device_train_batch_size=4 // accumulated, gradient_accumulation_steps=accumulated,
    )  # fmt: skip
    batches_of(trainer, seen)
    trainer.train()
    assert len(seen) == accumulated
    parts = [completions_by_hand(start, teacher, batch) for batch in seen]
    divergence = sum(part[0] for part in parts) / sum(part[2] for part in parts)
    geometry = sum(part[1] for part in parts) / accumulated
    check_first_step(trainer, start, student, divergence, geometry)


def test_on_policy_distillation_without_terms_is_trls_own(tmp_path):
    student, other = model(1), model(1)
    steps = {"max_steps": 2, "gradient_accumulation_steps": 2, "per_device_train_batch_size": 2}
    mine = on_policy(tmp_path, student, model(2), **steps)
    theirs = on_policy(tmp_path, other, model(2), kind=trl.DistillationTrainer, **steps)
    for trainer in (mine, theirs):
        torch.manual_seed(2)  # completions are sampled
        trainer.train()
    assert moved(weights(student), weights(other)) < 1e-7
    assert moved(weights(model(1)), weights(student)) > 1e-4
    torch.manual_seed(3)
    evaluated = mine.evaluate()["eval_loss"]
    torch.manual_seed(3)
    assert evaluated == pytest.approx(theirs.evaluate()["eval_loss"], rel=1e-5)


def test_on_policy_distillation_runs_its_teacher_once_a_step(tmp_path):
    student, teacher = model(1), model(2)
    said, before = counted(teacher.model), weights(teacher)
    on_policy(tmp_path, student, teacher, [term()]).train()
    assert len(said) == 2
    assert moved(before, weights(teacher)) == 0


def test_on_policy_distillation_refuses_a_logit_loss(tmp_path):
    with pytest.raises(InputError, match=r"logit_loss is KL.*, and TRL's DistillationTrainer has"):
        on_policy(tmp_path, model(1), model(2), [term()], logit_loss=KLDivergenceLoss())


def test_on_policy_distillation_takes_the_teacher_by_position(tmp_path):
    named = settings(tmp_path, max_completion_length=6)
    del named["max_length"]
    trainer = OnPolicy(
        model(0), model(1, width=48), trl.DistillationConfig(**named),
        train_dataset=PAIRS.select_columns("prompt"), processing_class=tokenizer(), terms=[term()],
    )  # fmt: skip
    trainer.train()
    assert len(logged(trainer, "loss/ProcrustesLoss[-1--1]")) == 2


def test_a_teacher_with_too_few_positions_is_refused_before_it_runs(tmp_path):
    short = tiny_opt(1, width=48, vocabulary=300, positions=12)
    calls = counted(short)
    with pytest.raises(InputError, match=r"a batch has \d+ tokens, the teacher takes 12"):
        on_policy(tmp_path, model(0), short, [term()]).train()
    assert not calls


def test_a_metric_of_the_terms_cannot_choose_the_best_model_where_none_is_measured(tmp_path):
    best = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1,
            "load_best_model_at_end": True, "metric_for_best_model": "geometry_kept"}  # fmt: skip
    with pytest.raises(InputError, match="OnPolicy runs it itself: expected another metric"):
        on_policy(tmp_path, model(0), model(1, width=48), [term()], **best)


def test_a_module_that_the_trainer_below_does_not_call_is_named(tmp_path):
    uncalled = FeatureTerm("lm_head", -1, ProcrustesLoss())
    with pytest.raises(InputError, match=r"OnPolicy does not call the teacher's 'lm_head'"):
        on_policy(tmp_path, model(0), model(1, width=48), [uncalled]).train()


@pytest.mark.parametrize("warm_up", [0, 1])
def test_a_term_below_every_trained_weight_is_refused_under_checkpointing(tmp_path, warm_up):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], layers_to_transform=[1])
    student = peft.get_peft_model(model(0), config)
    dead = FeatureTerm(1, 1, ProcrustesLoss(), weight_warmup_batches=warm_up)
    with pytest.raises(InputError, match="layer 1 depends on no weight that is trained"):
        on_policy(
            tmp_path, student, model(1, width=48), [dead], gradient_checkpointing=True
        ).train()
    alive = FeatureTerm(2, 2, ProcrustesLoss(), weight_warmup_batches=warm_up)
    student = peft.get_peft_model(model(0), config)
    trainer = on_policy(tmp_path, student, model(1, width=48), [alive], gradient_checkpointing=True)
    trainer.train()
    assert logged(trainer, "loss/ProcrustesLoss[2-2]")


def test_the_hooks_leave_no_trace(tmp_path):
    student, teacher = model(1), model(2)
    sft(tmp_path, student, [term()], teacher, max_steps=1).train()
    for module in (student.model, teacher):
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
    assert "fused_lm_head" not in inspect.signature(teacher.forward).parameters
