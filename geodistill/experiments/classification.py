"""Classification: a fine-tuned BERT teaches a small one from few labelled sentences.

The teacher of a task is trained once on the task's training part and runs once; each student then
learns from `n_train` of those sentences. Methods of one seed share the subsample, the student's
start and the order of the batches: their difference is paired.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from geodistill.distill import (
    FeatureDistillationTrainer,
    FeatureTerm,
    TeacherCache,
    bert_student,
    build_cache,
)
from geodistill.distill.cache import cache_key
from geodistill.errors import InputError
from geodistill.experiments.protocol import (
    CLASSIFICATION_METHODS,
    Geometry,
    check_method,
    feature_loss,
    uses_teacher,
)
from geodistill.experiments.store import Run
from geodistill.experiments.training import (
    fit,
    in_batches,
    pad,
    quiet,
    scratch,
    threads,
    training_arguments,
)
from geodistill.geometry import cka, feature_gram_distance, geometry_kept, procrustes_distance
from geodistill.losses import KLDivergenceLoss
from geodistill.tasks import assets, few_shot, load_classification

Report = Callable[[str], None]
STUDY = "exploratory/classification"
TEACHER_THREADS = 2
INIT, ORDER = 1_000, 2_000
"""Added to a run's seed: its seeds of subsample, start and order never coincide."""


@dataclass(frozen=True)
class TeacherSetting:
    """Fine-tuning of a BERT on the task's training part.

    Attributes:
        model: "minilm", the embedded 6-layer BERT, or a folder or hub name of another.
        max_train: training sentences used, by the teacher and by students; 0 for all.
    """

    model: str = "minilm"
    epochs: float = 2.0
    batch_size: int = 32
    learning_rate: float = 1e-4
    max_train: int = 0
    seed: int = 0


@dataclass(frozen=True)
class ClassificationSetting:
    """One study point; two runs with equal settings, method and seed are the same run.

    Attributes:
        task: name of a classification task.
        n_train: labelled sentences a student sees; 0 for all.
        factor: feature-term weight, as a multiple of the gradient-norm ratio.
        balance: micro-batches over which that ratio is measured.
        temperature: of the logit distillation; `kd_share` of the loss, the labels have the rest.
        max_length: longest text in tokens; what is longer is cut.
        max_test: test items used; 0 for all.
        probe: test items whose token features measure the geometry kept.
    """

    task: str
    n_train: int = 500
    epochs: float = 15.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    width: int = 128
    layers: int = 3
    temperature: float = 2.0
    kd_share: float = 0.9
    factor: float = 20.0
    balance: int = 32
    max_length: int = 96
    max_test: int = 0
    probe: int = 200
    teacher: TeacherSetting = field(default_factory=TeacherSetting)


def smoke(task: str) -> ClassificationSetting:
    """The smallest setting that runs every line: seconds."""
    teacher = TeacherSetting(epochs=1.0, max_train=64, batch_size=16)
    return ClassificationSetting(
        task, n_train=48, epochs=2.0, balance=2, width=64, layers=1, max_test=64, probe=16,
        teacher=teacher,
    )  # fmt: skip


@dataclass(frozen=True)
class Classroom:
    """A task with its trained teacher, tokenised, its outputs cached.

    Attributes:
        train, test: examples with input_ids, labels, item, source.
        train_cache: teacher outputs of all training examples, whose `row` is their place.
        test_cache: the same for the test part.
        metric: the task's own metric, beside accuracy.
    """

    setting: ClassificationSetting
    teacher: Any
    pad_id: int
    train: Any
    test: Any
    train_cache: TeacherCache
    test_cache: TeacherCache
    data_hash: str
    metric: str


def open_classroom(setting: ClassificationSetting, report: Report = lambda line: None) -> Classroom:
    """Load the task, train its teacher or find it trained, and cache what it says.

    Raises:
        InputError: unknown task, or one whose labels are not classes.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    quiet()
    data = load_classification(setting.task)
    if not data.label_names:
        raise InputError(f"task {setting.task!r} has no classes; expected a classification task")
    base = assets.path("minilm") if setting.teacher.model == "minilm" else setting.teacher.model
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenise = partial(_tokenise, tokenizer, data.text_columns, setting.max_length)
    train = data.train
    if setting.teacher.max_train:
        train = few_shot(train, setting.teacher.max_train, setting.teacher.seed)
    train = train.map(tokenise, batched=True, with_indices=True)
    test = data.test if not setting.max_test else few_shot(data.test, setting.max_test, seed=0)
    test = test.map(tokenise, batched=True, with_indices=True)

    recipe = json.dumps([asdict(setting.teacher), setting.max_length, data.data_hash])
    folder = assets.cache_dir() / "teachers" / f"{setting.task}-{cache_key(recipe)}"
    if not (folder / "config.json").is_file():
        report(f"training the {setting.task} teacher")
        _train_teacher(base, len(data.label_names), train, setting.teacher, tokenizer, folder)
    teacher = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    caches = []
    for name, part in (("train", train), ("test", test)):
        examples = list(part)
        lengths = [len(e["input_ids"]) for e in examples]
        key = cache_key(folder.name, name, json.dumps([e["input_ids"] for e in examples]))
        report(f"running the {setting.task} teacher on {len(examples)} {name} sentences")
        caches.append(
            build_cache(
                teacher,
                in_batches(examples, 64, tokenizer.pad_token_id),
                lengths,
                assets.cache_dir() / "outputs" / key,
                layers=(-1,),
            )
        )
    return Classroom(
        setting,
        teacher,
        tokenizer.pad_token_id,
        train,
        test,
        caches[0],
        caches[1],
        data.data_hash,
        data.metric,
    )


def _tokenise(
    tokenizer: Any,
    columns: tuple[str, ...],
    length: int,
    batch: dict[str, list[Any]],
    rows: list[int],
) -> dict[str, Any]:
    texts = [batch[c] for c in columns]
    ids = tokenizer(*texts, truncation=True, max_length=length)["input_ids"]
    return {"input_ids": ids, "labels": batch["label"], "row": rows}


def _train_teacher(
    base: Path | str, labels: int, train: Any, setting: TeacherSetting, tokenizer: Any, folder: Path
) -> None:
    """Fine-tune and save; by rename, so that a killed training leaves no half teacher."""
    from transformers import AutoModelForSequenceClassification, Trainer, set_seed

    set_seed(setting.seed)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels)
    with scratch() as folder_of_run:
        arguments = training_arguments(
            Path(folder_of_run),
            seed=setting.seed,
            num_train_epochs=setting.epochs,
            per_device_train_batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
        )
        collate = partial(_collate, tokenizer.pad_token_id, ("input_ids", "labels"))
        trainer = Trainer(model=model, args=arguments, train_dataset=train, data_collator=collate)
        with threads(TEACHER_THREADS):
            fit(trainer)
        partial_folder = folder.with_name(f"{folder.name}.partial")
        model.save_pretrained(partial_folder)
    partial_folder.rename(folder)


def _collate(
    pad_id: int, names: tuple[str, ...], examples: list[dict[str, Any]]
) -> dict[str, Tensor]:
    return pad([{name: e[name] for name in names} for e in examples], pad_id)


def run_classification(room: Classroom, method: str, seed: int) -> tuple[Run, Any]:
    """Train and score one student.

    Args:
        room: the task and its teacher.
        method: one of `CLASSIFICATION_METHODS`.
        seed: of the subsample, the start and the order.

    Returns:
        The run, and the trained student.

    Raises:
        InputError: unknown method, more sentences asked for than there are.
    """
    check_method(method, CLASSIFICATION_METHODS)
    started = time.perf_counter()
    setting = room.setting
    shots = few_shot(room.train, setting.n_train or len(room.train), seed)
    student = bert_student(
        room.teacher, width=setting.width, layers=setting.layers, seed=INIT + seed
    )
    with scratch() as folder, threads(1):
        trainer = FeatureDistillationTrainer(
            model=student,
            args=training_arguments(
                Path(folder),
                seed=ORDER + seed,
                num_train_epochs=setting.epochs,
                per_device_train_batch_size=setting.batch_size,
                learning_rate=setting.learning_rate,
            ),
            train_dataset=shots,
            data_collator=partial(_collate, room.pad_id, ("input_ids", "labels", "row")),
            **_distillation(room, method, seed, shots),
        )
        fit(trainer)
    metrics, items = _score(room, student)
    metrics |= trainer.term_weights()
    config = classification_config(setting, method)
    run = Run(
        STUDY, setting.task, method, seed, config, room.data_hash, metrics, items,
        wall_seconds=time.perf_counter() - started,
    )  # fmt: skip
    return run, student


def _distillation(room: Classroom, method: str, seed: int, shots: Any) -> dict[str, Any]:
    """Arguments of the mixin for one method; none for learning from labels alone."""
    if not uses_teacher(method):
        return {}
    setting = room.setting

    def teacher_rows() -> Tensor:
        examples = list(shots)
        batch = _collate(room.pad_id, ("input_ids", "row"), examples)
        mask = batch["attention_mask"].bool()
        layer = room.train_cache.manifest["layers"][0]
        return room.train_cache.lookup(batch["row"], mask, [layer]).features[layer][mask]

    geometry = Geometry(setting.width, room.teacher.config.hidden_size, teacher_rows, seed)
    loss = feature_loss(method, geometry)
    terms = [] if loss is None else [
        FeatureTerm(-1, -1, loss, weight=setting.factor, balance=setting.balance)
    ]  # fmt: skip
    return {
        "teacher_cache": room.train_cache,
        "terms": terms,
        "logit_loss": KLDivergenceLoss(temperature=setting.temperature),
        "task_weight": 1 - setting.kd_share,
        "logit_weight": setting.kd_share,
    }


@torch.no_grad()
def _score(room: Classroom, student: Any) -> tuple[dict[str, float], pd.DataFrame]:
    """Metrics on the test part, and a row a test item."""
    student.eval()
    examples = list(room.test)
    logits = torch.empty(len(examples), student.config.num_labels)
    probe: dict[int, Tensor] = {}
    for batch in in_batches([{"input_ids": e["input_ids"]} for e in examples], 128, room.pad_id):
        rows, mask = batch.pop("row"), batch["attention_mask"].bool()
        out = student(**batch, output_hidden_states=True)
        logits[rows] = out.logits
        for row, features, kept in zip(rows.tolist(), out.hidden_states[-1], mask, strict=True):
            if row < room.setting.probe:
                probe[row] = features[kept]
    scores = logits.log_softmax(-1)
    labels = torch.tensor([e["labels"] for e in examples])
    nll = -scores.gather(1, labels[:, None])[:, 0]
    predicted = scores.argmax(-1)
    teacher = torch.tensor(room.test_cache.array("logits")).argmax(-1)
    items = pd.DataFrame(
        {
            "item": [e["item"] for e in examples],
            "source": [e["source"] for e in examples],
            "label": labels.numpy(),
            "prediction": predicted.numpy(),
            "score": (predicted == labels).double().numpy(),
            "nll": nll.double().numpy(),
        }
    )
    metrics = {
        "accuracy": _accuracy(items["label"], items["prediction"]),
        "nll": float(items["nll"].mean()),
        "agreement": float((predicted == teacher).double().mean()),
        "teacher_accuracy": float((teacher == labels).double().mean()),
        "majority_accuracy": float(labels.bincount().max() / len(labels)),
    }
    metrics[room.metric] = METRICS[room.metric](items["label"], items["prediction"])
    return metrics | _geometry(room.test_cache, [probe[i] for i in range(len(probe))]), items


def _accuracy(labels: Any, predictions: Any) -> float:
    return float((labels == predictions).mean())


def _f1(labels: Any, predictions: Any) -> float:
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions))


def _matthews(labels: Any, predictions: Any) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predictions))


METRICS = {"accuracy": _accuracy, "f1": _f1, "matthews_correlation": _matthews}


def _geometry(cache: TeacherCache, rows: list[Tensor]) -> dict[str, float]:
    """How much of the teacher's last-layer token geometry the student has, on test sentences."""
    lengths = [len(r) for r in rows]
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    layer = cache.manifest["layers"][0]
    teacher = cache.lookup(torch.arange(len(rows)), mask, [layer]).features[layer][mask]
    student = torch.cat(rows)
    kept = {
        "procrustes": geometry_kept(procrustes_distance, teacher, student),
        "gram": geometry_kept(feature_gram_distance, teacher, student),
        "cka": geometry_kept(cka, teacher, student),
    }
    return {f"geometry_kept/{k}": float(v) for k, v in kept.items()} | {
        "cka": float(cka(teacher, student))
    }


def classification_config(setting: ClassificationSetting, method: str) -> dict[str, Any]:
    """Everything that a run of `method` depends on besides its seed and the data."""
    return {**asdict(setting), "method": method}
