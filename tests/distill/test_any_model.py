"""Each kind of model and argument works or is refused in one sentence, before a weight moves."""

import warnings

import pytest
import torch
import transformers as hf
from support.model_matrix import _RESNET, _VIT, CASES, IMAGES, MASKED, bert, own, stacked
from support.tiny_models import (
    answers,
    collate,
    distiller,
    moved,
    sentences,
    tiny_bert,
    tiny_opt,
    weights,
    without,
)
from support.tiny_tokenizers import byte_tokenizer
from torch import nn

from geodistill.distill import FeatureDistillation, FeatureTerm, pad
from geodistill.errors import InputError
from geodistill.losses import (
    BernoulliKLLoss,
    KLDivergenceLoss,
    LogitLoss,
    ProcrustesLoss,
    ProjectionLoss,
    SquaredErrorLoss,
)

DATA = sentences([6, 4, 5, 6], seed=1)
UNLABELLED = [without(row, "labels") for row in DATA]
PAIRS = next(case for case in CASES if case.family == "BERT to DistilBERT")


def trainer_of(folder, student, teacher, data=DATA, collator=collate, **settings):
    return distiller(
        folder, student, data, teacher_model=teacher, data_collator=collator, max_steps=1,
        per_device_train_batch_size=4, **settings,
    )  # fmt: skip


def first_log(trainer):
    trainer.train()
    return trainer.state.log_history[0]


def at(layer, student_layer=None, loss=None, **settings):
    return [FeatureTerm(layer, layer if student_layer is None else student_layer,
                        loss or ProcrustesLoss(), **settings)]  # fmt: skip


# ---- what the teacher reads ----


def test_columns_that_only_the_teacher_takes_reach_it_by_default(tmp_path):
    """`Trainer` removes columns that the student's forward does not name."""
    log = first_log(
        trainer_of(
            tmp_path, PAIRS.student(1), PAIRS.teacher(2), PAIRS.rows, logit_loss=KLDivergenceLoss(),
            remove_unused_columns=True,
        )
    )  # fmt: skip
    assert log["loss/logit"] == pytest.approx(PAIRS.by_hand()["loss/logit"], rel=1e-4)


def test_labels_of_each_kind_are_padded_or_refused():
    ids = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]

    def labels(one, other):
        return pad([{**ids[0], "labels": one}, {**ids[1], "labels": other}], 0)["labels"]

    assert labels(1, 2).tolist() == [1, 2]
    assert labels([1, 2, 3], [4]).tolist() == [[1, 2, 3], [4, -100, -100]]
    assert labels([1, 2], [4, 5, 6]).tolist() == [[1, 2, -100], [4, 5, 6]]  # a decoder's
    assert labels([0.0, 1.0], [1.0, 1.0]).tolist() == [[0.0, 1.0], [1.0, 1.0]]
    assert labels([0.0, 1.0, 1.0], [1.0, 0.0, 0.0]).dtype == torch.float32
    for mixed in ((1, [2]), ([0.5], [0.5, 1.0]), (1, "yes")):
        with pytest.raises(InputError, match=r"labels of one batch are .*: expected one number or"):
            labels(*mixed)


def test_a_teacher_set_to_training_teaches_without_dropout(tmp_path):
    teacher = bert(hf.BertForSequenceClassification, 2, num_labels=3, hidden_dropout_prob=0.5)
    batch = without(collate(DATA), "row", "labels")
    with torch.no_grad():
        p, q = (m.eval()(**batch).logits.log_softmax(-1) for m in (teacher, tiny_bert(1)))
    trainer = trainer_of(tmp_path, tiny_bert(1), teacher, logit_loss=KLDivergenceLoss())
    teacher.train()
    value = first_log(trainer)["loss/logit"]
    assert value == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)


# ---- heads ----


SEVERAL = {"problem_type": "multi_label_classification"}


@pytest.mark.parametrize(
    ("student", "labels", "loss", "words"),
    [
        ({"labels": 1}, None, KLDivergenceLoss(), "head is for regression: expected SquaredErr"),
        (SEVERAL, None, KLDivergenceLoss(), "head is for multi_label_class.*: expected BernoulliK"),
        ({}, [0.0, 1.0, 1.0], KLDivergenceLoss(), "head is for multi_label_classification"),
        ({}, None, nn.KLDivLoss(), r"logit_loss is KLDivLoss\(\), which does not say that it"),
        ({}, None, nn.MSELoss(), "does not say that it takes raw logits: expected 'auto'"),
        ({}, None, "soft", "logit_loss is 'soft': expected a module"),
    ],
)
def test_a_logit_loss_of_another_head_is_refused(tmp_path, student, labels, loss, words):
    data = DATA if labels is None else [{**row, "labels": labels} for row in DATA]
    models = tiny_bert(1, **student), tiny_bert(2, **student)
    with pytest.raises(InputError, match=words):
        trainer_of(tmp_path, *models, data, logit_loss=loss)


@pytest.mark.parametrize(
    ("student", "kind"),
    [
        ({"labels": 1}, SquaredErrorLoss),
        ({"problem_type": "multi_label_classification"}, BernoulliKLLoss),
        ({}, KLDivergenceLoss),
    ],
)
def test_the_head_chooses_the_logit_loss_and_the_log_says_which(tmp_path, caplog, student, kind):
    with caplog.at_level("INFO", logger="geodistill"):
        trainer = trainer_of(
            tmp_path, tiny_bert(1, **student), tiny_bert(2, **student), logit_loss="auto"
        )
    assert type(trainer.logit_loss) is kind
    assert f"logit loss: {kind.__name__}" in caplog.text


def test_labels_in_another_order_are_refused(tmp_path):
    models = tiny_bert(1), tiny_bert(2)
    for model, names in zip(models, ("abc", "bca"), strict=True):
        model.config.id2label = dict(enumerate(names))
    with pytest.raises(InputError, match=r"teacher's labels are {0: 'b'.*the student's {0: 'a'"):
        trainer_of(tmp_path, *models, logit_loss=KLDivergenceLoss())
    models[0].config.id2label = dict(enumerate("bca"))
    assert first_log(trainer_of(tmp_path, *models, logit_loss=KLDivergenceLoss()))["loss/logit"] > 0


def test_a_loss_of_ones_own_that_takes_logits_is_used(tmp_path):
    class Half(LogitLoss):
        def forward(self, student, teacher):
            return 0 * student.sum() + 0.5

    assert first_log(trainer_of(tmp_path, tiny_bert(1), tiny_bert(2), logit_loss=Half()))[
        "loss/logit"
    ] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "loss",
    [nn.MSELoss(), nn.Linear(2, 2), nn.KLDivLoss(), nn.CosineEmbeddingLoss(), KLDivergenceLoss()],
)
def test_a_loss_without_mask_of_torchs_own_or_of_logits_is_refused_as_a_term(loss):
    told = r"is not called as loss\(student, teacher, mask\) of features"
    with pytest.raises(InputError, match=told):
        FeatureTerm(-1, -1, loss)


# ---- what there is to learn from ----


@pytest.mark.parametrize("model", [tiny_bert, tiny_opt])
def test_examples_without_labels_serve_if_the_task_has_no_weight(tmp_path, model):
    student = model(1)
    log = first_log(
        trainer_of(
            tmp_path, student, model(2), UNLABELLED, task_weight=0.0, logit_loss="auto",
            terms=at(-1),
        )
    )  # fmt: skip
    batch = without(collate(UNLABELLED), "row")
    with torch.no_grad():
        pair = [m(**batch).logits for m in (model(1), model(2))]
    if pair[0].dim() == 3:
        pair = [x[batch["attention_mask"].bool()] for x in pair]
    q, p = (x.log_softmax(-1) for x in pair)
    assert log["loss/logit"] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert log["loss/task"] == 0
    assert moved(weights(student), weights(model(1))) > 1e-4


def test_examples_without_labels_are_refused_if_it_has_one(tmp_path):
    student = tiny_bert(1)
    with pytest.raises(InputError, match=r"no labels \(labels\) and BertForSeq.*task_weight=0 to"):
        trainer_of(tmp_path, student, tiny_bert(2), UNLABELLED, terms=at(-1)).train()
    assert moved(weights(student), weights(tiny_bert(1))) == 0


def test_bodies_without_heads_learn_from_features(tmp_path):
    student = tiny_bert(1).bert
    trainer = trainer_of(
        tmp_path, student, tiny_bert(2, width=48).bert, UNLABELLED, task_weight=0.0, terms=at(-1)
    )
    assert first_log(trainer)["loss/ProcrustesLoss[-1--1]"] > 0.1
    with pytest.raises(InputError, match="BertModel gives none: leave logit_loss out"):
        trainer_of(tmp_path, tiny_bert(1), student, logit_loss=KLDivergenceLoss()).train()


def test_outputs_as_tuples_are_read_too(tmp_path):
    student, teacher = tiny_bert(1), tiny_bert(2)
    expected = first_log(
        trainer_of(tmp_path, tiny_bert(1), tiny_bert(2), logit_loss="auto", terms=at(-1))
    )
    student.config.return_dict = teacher.config.return_dict = False
    found = first_log(trainer_of(tmp_path, student, teacher, logit_loss="auto", terms=at(-1)))
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_a_task_loss_that_divides_by_the_count_of_items(tmp_path):
    def summed(outputs, labels, num_items_in_batch):
        loss = nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum")
        return loss / num_items_in_batch

    logs = [
        first_log(trainer_of(tmp_path, tiny_bert(1), tiny_bert(2), terms=at(-1), **settings))
        for settings in ({}, {"compute_loss_func": summed})
    ]
    assert logs[0]["loss/task"] == pytest.approx(logs[1]["loss/task"], rel=1e-5)


def test_images_of_other_positions_are_compared_by_their_means_only(tmp_path):
    def coarse(seed):
        return _VIT(seed).__class__(hf.ViTConfig(**{
            **_VIT(seed).config.to_dict(), "patch_size": 8}))  # fmt: skip

    for pooling in ("all", "mean"):
        trainer = trainer_of(
            tmp_path, coarse(1), _VIT(2), IMAGES, stacked, terms=at(-1, pooling=pooling)
        )
        if pooling == "mean":
            assert first_log(trainer)["loss/ProcrustesLoss[-1--1]"] > 0.01
        else:
            with pytest.raises(
                InputError, match=r"teacher has \[17, 17, 17\] positions .*\[5, 5, 5"
            ):
                trainer.train()


# ---- refused before a step ----


def test_a_path_that_names_no_module_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"teacher_layer is 'classifer', .* as classifier"):
        trainer_of(tmp_path, tiny_bert(1), tiny_bert(2), terms=at("classifer", -1))


def test_numbers_that_the_configuration_does_not_count_are_refused_in_the_first_batch(tmp_path):
    student = _RESNET(1)
    with pytest.raises(InputError, match=r"student_layer is 7, the student has layers 0 .* to 2"):
        trainer_of(tmp_path, student, _RESNET(2), IMAGES, stacked, terms=at(-1, 7)).train()
    assert moved(weights(student), weights(_RESNET(1))) == 0


def test_a_module_of_nobodys_library_needs_a_path(tmp_path):
    with pytest.raises(
        InputError, match=r"OwnModule has no numbered hidden_states: expected the p"
    ):
        trainer_of(tmp_path, own(1), own(2), terms=at(-1))
    student = own(1)
    student.spare = nn.Linear(2, 2)
    trainer = trainer_of(tmp_path, student, own(2), terms=at("body", "spare"))
    with pytest.raises(InputError, match=r"'spare', a module that the student's forward does not"):
        trainer.train()


def test_features_without_gradient_are_refused(tmp_path):
    student = tiny_bert(1)
    student.bert.embeddings.requires_grad_(False)
    with pytest.raises(
        InputError, match="layer 0 depends on no weight that is trained, or is insid"
    ):
        trainer_of(tmp_path, student, tiny_bert(2), terms=at(0)).train()


def checkpointed(folder, measured=-1, **checkpointing):
    """Terms by number and by path, one with a measured weight."""
    student, terms = tiny_opt(1), [*at(measured, weight_warmup_batches=1), *at("layers.0")]
    data = answers([8, 7, 8, 6], [3, 1, 5, 2], seed=1)
    settings = {} if not checkpointing else {
        "activation_checkpointing": True, "activation_checkpointing_kwargs": checkpointing
    }  # fmt: skip
    trainer = trainer_of(folder, student, tiny_opt(2), data, terms=terms, **settings)
    return first_log(trainer)["loss"], weights(student)


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(tmp_path, reentrant):
    plain, expected = checkpointed(tmp_path)
    loss, found = checkpointed(tmp_path, use_reentrant=reentrant)
    assert loss == pytest.approx(plain, rel=1e-5)
    assert moved(expected, found) < 1e-5


def test_a_gradient_inside_reentrant_checkpointing_is_refused(tmp_path):
    with pytest.raises(InputError, match="inside reentrant checkpointing: expected activation_che"):
        checkpointed(tmp_path, "layers.0", use_reentrant=True)


def test_weights_that_both_models_share_are_told(tmp_path):
    student, teacher = tiny_bert(1), tiny_bert(2)
    student.bert.embeddings.word_embeddings = teacher.bert.embeddings.word_embeddings
    with pytest.warns(
        UserWarning, match=r"shares 1 weights with the teacher \(bert.embeddings.word_"
    ):
        trainer_of(tmp_path, student, teacher, logit_loss=KLDivergenceLoss())
    with pytest.raises(InputError, match="teacher_model and model share every weight"):
        trainer_of(tmp_path, teacher.requires_grad_(True), teacher, logit_loss=KLDivergenceLoss())
    with warnings.catch_warnings(action="error"):
        trainer_of(tmp_path, tiny_bert(1), tiny_bert(2), logit_loss=KLDivergenceLoss())


def test_a_scheduler_that_does_not_know_the_projection(tmp_path):
    student, loss = tiny_bert(1), ProjectionLoss(32, 32)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    with pytest.raises(
        InputError, match="optimizers: the scheduler was made for an optimizer with"
    ):
        trainer_of(tmp_path, student, tiny_bert(2), terms=at(-1, loss=loss),
                   optimizers=(optimizer, schedule))  # fmt: skip
    optimizer = torch.optim.SGD([*student.parameters(), *loss.parameters()], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
    start = loss.weight.detach().clone()
    trainer_of(tmp_path, student, tiny_bert(2), terms=at(-1, loss=loss),
               optimizers=(optimizer, schedule)).train()  # fmt: skip
    assert float((loss.weight - start).abs().max()) > 1e-3


def test_padded_vocabularies_of_one_tokenizer_are_cut(tmp_path):
    tokenizer = byte_tokenizer()
    n, data = len(tokenizer), answers([8, 7, 8, 6], [3, 1, 5, 2], seed=1)
    models = tiny_opt(1, vocabulary=n + 5), tiny_opt(2, vocabulary=n + 16)
    with pytest.raises(InputError, match="padded to different sizes, give it as teacher_tokenizer"):
        trainer_of(tmp_path, *models, data, logit_loss=KLDivergenceLoss())
    batch = collate(data)
    mask = nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    with torch.no_grad():
        q, p = (
            m(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[mask][:, : n + 5]
            for m in (tiny_opt(1, vocabulary=n + 5), models[1])
        )
    expected = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum(-1).mean()
    log = first_log(
        trainer_of(
            tmp_path, *models, data, logit_loss=KLDivergenceLoss(), teacher_tokenizer=tokenizer,
            processing_class=tokenizer,
        )
    )  # fmt: skip
    assert log["loss/logit"] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("name", ["SentenceTransformerTrainer", "ServerDistillationTrainer"])
def test_trainers_whose_step_cannot_be_extended(name):
    base = type(name, (hf.Trainer,), {})
    with pytest.raises(InputError, match=rf"{name} cannot be extended: its "):
        type("Mine", (FeatureDistillation, base), {})(model=tiny_bert(1))


@pytest.mark.parametrize("name", ["is_fsdp_enabled", "is_deepspeed_enabled"])
def test_sharded_weights_are_refused(tmp_path, monkeypatch, name):
    made = hf.Trainer.__init__

    def sharded(self, *args, **kwargs):
        made(self, *args, **kwargs)
        setattr(self, name, True)

    monkeypatch.setattr(hf.Trainer, "__init__", sharded)
    with pytest.raises(
        InputError, match="ask for FSDP or DeepSpeed, with which distillation is not"
    ):
        trainer_of(tmp_path, tiny_bert(1), tiny_bert(2), terms=at(-1))


def test_masked_positions_are_no_next_tokens():
    assert [row["labels"].count(-100) for row in MASKED] == [len(r["labels"]) - 2 for r in MASKED]


def test_every_column_with_the_prefix_reaches_a_teacher_with_another_tokenizer(tmp_path):
    rows = [
        {**row, "teacher_input_ids": [5, 6, 7 + i], "teacher_token_type_ids": [0, 1, 1]}
        for i, row in enumerate(DATA)
    ]
    teacher = tiny_bert(2)
    batch = {
        name: torch.tensor([row[f"teacher_{name}"] for row in rows])
        for name in ("input_ids", "token_type_ids")
    }
    own_ids = without(collate(DATA), "row", "labels")
    with torch.no_grad():
        p = teacher.eval()(**batch).logits.log_softmax(-1)
        q = tiny_bert(1).eval()(**own_ids).logits.log_softmax(-1)
    expected = float((p.exp() * (p - q)).sum(-1).mean())
    log = first_log(
        trainer_of(
            tmp_path, tiny_bert(1), teacher, rows, logit_loss=KLDivergenceLoss(),
            remove_unused_columns=True,
        )
    )  # fmt: skip
    assert log["loss/logit"] == pytest.approx(expected, rel=1e-4)


# ---- wrappers, and teachers that take no labels ----


class Wrapper(nn.Module):
    """Passes on whatever it is given."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


class Unlabelled(Wrapper):
    def forward(self, input_ids, attention_mask):
        return self.inner(input_ids=input_ids, attention_mask=attention_mask).logits


def compiled(model):
    return torch.compile(model, backend="eager")


@pytest.mark.parametrize(
    ("student", "teacher"),
    [(compiled, compiled), (lambda m: m, Wrapper), (lambda m: m, Unlabelled)],
)
def test_a_wrapped_model_has_the_positions_of_the_model_inside(tmp_path, student, teacher):
    rows = answers([8, 7, 8, 6], kept=[3, 1, 5, 2], seed=1)
    batch = without(collate(rows), "row")
    mask = nn.functional.pad(batch.pop("labels")[:, 1:] != -100, (0, 1))
    with torch.no_grad():
        q, p = (tiny_opt(i).eval()(**batch).logits[mask].log_softmax(-1) for i in (1, 2))
    terms = at("layers.0", weight=0.0)  # whose positions must be those of the teacher
    trainer = trainer_of(
        tmp_path, student(tiny_opt(1)), teacher(tiny_opt(2)), rows, terms=terms, logit_loss="auto"
    )
    expected = float((p.exp() * (p - q)).sum(-1).mean())
    assert first_log(trainer)["loss/logit"] == pytest.approx(expected, rel=1e-4)


def test_a_body_counts_the_positions_of_its_students_loss(tmp_path):
    rows = answers([8, 7, 8, 6], kept=[3, 1, 5, 2], seed=1)
    values = [
        first_log(trainer_of(tmp_path / name, tiny_opt(1), teacher, rows, terms=at(-1)))
        for name, teacher in (("body", tiny_opt(2).model), ("whole", tiny_opt(2)))
    ]
    body, whole = (value["loss/ProcrustesLoss[-1--1]"] for value in values)
    assert body == pytest.approx(whole, rel=1e-5)
    assert body > 0.1


def test_numbers_are_those_of_the_tower_that_is_read(tmp_path):
    """CLIP's configuration counts the blocks of its texts first."""
    clip = next(case for case in CASES if case.family == "CLIP").teacher(0).config
    clip.vision_config.num_hidden_layers, clip.num_labels = 4, 3
    torch.manual_seed(0)
    models = [hf.CLIPForImageClassification(clip) for _ in range(2)]
    with torch.no_grad():
        pixels = stacked(IMAGES)["pixel_values"]
        x, y = (m(pixel_values=pixels, output_hidden_states=True).hidden_states for m in models)
    expected = float(ProcrustesLoss()(x[4], y[4]))
    trainer = trainer_of(tmp_path, *models, IMAGES, stacked, terms=at(-1))
    assert first_log(trainer)["loss/ProcrustesLoss[-1--1]"] == pytest.approx(expected, rel=1e-4)
