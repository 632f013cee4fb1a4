"""A classification task with its teacher: trained once, its outputs kept for every student."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor

from geodistill.distill import TeacherCache, build_cache
from geodistill.distill.feature_term import resolve_layer
from geodistill.distill.students import same_depth
from geodistill.distill.teacher_cache import cache_key
from geodistill.errors import InputError
from geodistill.experiments.classification.students import SMALL, Pupils
from geodistill.experiments.classification.teacher import (
    TeacherSetting,
    check_labels,
    stored_teacher,
    train_teacher,
)
from geodistill.experiments.training import collate, device, in_batches, quiet
from geodistill.geometry import cka, feature_gram_distance, procrustes_distance
from geodistill.geometry.normalized_score import Calibration, calibrate
from geodistill.tasks import ClassificationData, assets, stratified_subsample, load_classification

Report = Callable[[str], None]
MEASURES: dict[str, Callable[..., Tensor]] = {
    "procrustes": procrustes_distance,
    "gram": feature_gram_distance,
    "cka": cka,
}


def geometry_kept(calibrations: dict[str, Calibration], student: Tensor) -> dict[str, float]:
    """`geometry_kept/<name>` by each calibration; none of a student whose rows are all equal."""
    kept = {f"geometry_kept/{name}": one.kept(student) for name, one in calibrations.items()}
    return {name: value for name, value in kept.items() if not math.isnan(value)}


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
        rows: of the feature term: "all" tokens, or each sentence's "first".
        part: what the student is scored on: "test", or "validation" to choose a setting.
        memory: share of past moments that a geometry loss keeps; 0 for the batch alone.
        teacher_layers: matched with the student's last ones, in order, one feature term each.
        start_seed: of the start and the order, where the run's seed shall set the subsample alone.
        student: "bert", a small one of `layers` x `width`; "truncate", the teacher cut to `layers`;
            "pretrained", the same of the model that the teacher was fine-tuned from; or a folder or
            hub name of an encoder with the teacher's tokens. A folder that holds a configuration
            alone gives a random start.
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
    rows: Literal["all", "first"] = "all"
    part: Literal["test", "validation"] = "test"
    memory: float = 0.0
    teacher_layers: tuple[int, ...] = (-1,)
    start_seed: int | None = None
    student: str = SMALL


def smoke(task: str) -> ClassificationSetting:
    """The smallest setting that runs every line: seconds."""
    teacher = TeacherSetting(epochs=1.0, max_train=64, batch_size=16)
    return ClassificationSetting(
        task, n_train=48, epochs=2.0, balance=2, width=64, layers=1, max_test=64, probe=16,
        teacher=teacher,
    )  # fmt: skip


@dataclass(frozen=True)
class ClassificationSetup:
    """A task with its trained teacher, tokenised, its outputs cached.

    Attributes:
        train, test: examples with input_ids, labels, item, source; `test` is the setting's part.
        train_cache: teacher outputs of all training examples, whose `row` is their place.
        test_cache: the same for the test part.
        metric: the task's own metric.
        classes: number of labels; 0 for a score, which is standardised over `train`.
        width, layers: of the students.
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
    classes: int
    width: int
    layers: int

    @cached_property
    def calibrations(self) -> dict[str, Calibration]:
        """Null and best of each measure on the probe's tokens, the same for every student."""
        rows = self.probe_features()
        return {name: calibrate(measure, rows, self.width) for name, measure in MEASURES.items()}

    @cached_property
    def earlier(self) -> dict[int, Calibration]:
        """By student layer but the last: Procrustes to the teacher's layer at the same depth."""
        return {
            layer: calibrate(procrustes_distance, self.probe_features(layer - 1), self.width)
            for layer in range(1, self.layers)
        }

    def student(self, seed: int) -> Any:
        """An untrained student."""
        return _pupils(self.setting).make(self.teacher, seed)

    def probe_features(self, place: int = -1) -> Tensor:
        """Teacher features of all tokens of the first `probe` test items, (tokens, d).

        `place` counts the layers at the depths of the student's, the last by default.
        """
        count = min(self.setting.probe, len(self.test))
        return cached_rows(self.test_cache, self.test.select(range(count)), self.pad_id, place)


def open_classroom(
    setting: ClassificationSetting,
    report: Report = lambda line: None,
    data: ClassificationData | None = None,
) -> ClassificationSetup:
    """Load the task, train its teacher or find it trained, and cache what it says.

    Args:
        setting: what is asked.
        report: called with a line for each stage.
        data: the task itself, where it is a reader's own (`geodistill.tasks.load_file`).

    Raises:
        InputError: unknown task or part, a layer that the teacher lacks, a fine-tuned teacher with
            another number of labels, a student that cannot be made, a full disk.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    quiet()
    if setting.part not in ("test", "validation"):
        raise InputError(f"part is {setting.part!r}; expected test or validation")
    data = load_classification(setting.task) if data is None else data
    base = _base(setting)
    tokenizer = AutoTokenizer.from_pretrained(base)
    outputs = max(len(data.label_names), 1)
    config = AutoConfig.from_pretrained(base)
    check_labels(base, outputs, setting.task)
    positions = getattr(config, "max_position_embeddings", None) or setting.max_length
    if setting.max_length > positions:
        raise InputError(
            f"max_length is {setting.max_length}; expected at most {positions}, which is what "
            f"teacher.model {setting.teacher.model!r} takes"
        )
    for layer in setting.teacher_layers:
        resolve_layer(layer, config, "teacher")
    width, layers = _pupils(setting).size(config, tokenizer, outputs, setting.task)
    train, test = _parts(data, setting, tokenizer, report)
    recipe = json.dumps([asdict(setting.teacher), setting.max_length, data.data_hash])
    folder = assets.cache_dir() / "teachers" / f"{setting.task}-{cache_key(recipe)}"
    teacher = stored_teacher(folder)
    if teacher is None:
        report(f"training the {setting.task} teacher")
        train_teacher(base, outputs, train, setting.teacher, tokenizer.pad_token_id, folder)
        teacher = AutoModelForSequenceClassification.from_pretrained(folder)
    teacher.eval().to(device())
    caches = []
    # The test cache serves the geometry kept, layer by layer.
    depths = same_depth(teacher.config.num_hidden_layers, layers)
    for name, part, kept in (("train", train, setting.teacher_layers), ("test", test, depths)):
        report(f"running the {setting.task} teacher on {len(part)} {name} sentences")
        caches.append(
            _cache_outputs(teacher, part, name, folder.name, tokenizer.pad_token_id, kept, report)
        )
    return ClassificationSetup(
        setting,
        teacher,
        tokenizer.pad_token_id,
        train,
        test,
        caches[0],
        caches[1],
        data.data_hash,
        data.metric,
        len(data.label_names),
        width,
        layers,
    )


def _pupils(setting: ClassificationSetting) -> Pupils:
    return Pupils(setting.student, setting.width, setting.layers, _base(setting))


def _base(setting: ClassificationSetting) -> str:
    """Folder or hub name of the model that the teacher is fine-tuned from."""
    embedded = setting.teacher.model == "minilm"
    return str(assets.path("minilm")) if embedded else setting.teacher.model


def _parts(
    data: ClassificationData, setting: ClassificationSetting, tokenizer: Any, report: Report
) -> tuple[Any, Any]:
    """The training pool and the part to score, tokenised."""
    train, test = data.train, data.test if setting.part == "test" else data.validation
    if setting.teacher.max_train:
        train = stratified_subsample(train, setting.teacher.max_train, setting.teacher.seed)
    if setting.max_test:
        test = stratified_subsample(test, setting.max_test, seed=0)
    scores = torch.tensor(train["label"], dtype=torch.float64)
    scale = None if data.label_names else (float(scores.mean()), float(scores.std()))
    tokenise = partial(_tokenise, tokenizer, data.text_columns, setting.max_length, scale)
    parts = [part.map(tokenise, batched=True, with_indices=True) for part in (train, test)]
    for name, part in zip(("train", setting.part), parts, strict=True):
        full = part.filter(lambda e: len(e["input_ids"]) == setting.max_length)
        texts = [list(full[c]) for c in data.text_columns]
        whole = tokenizer(*texts)["input_ids"] if len(full) else []
        cut = sum(len(ids) > setting.max_length for ids in whole)
        if cut:
            report(
                f"{setting.task}: {cut} of {len(part)} {name} texts are longer than "
                f"{setting.max_length} tokens and are cut there"
            )
    return parts[0], parts[1]


def _cache_outputs(
    teacher: Any,
    part: Any,
    name: str,
    owner: str,
    pad_id: int,
    layers: tuple[int, ...],
    report: Report,
) -> TeacherCache:
    examples = list(part.select_columns(["input_ids"]))
    key = cache_key(owner, name, json.dumps([e["input_ids"] for e in examples]), *map(str, layers))
    return build_cache(
        teacher,
        in_batches(examples, 64, pad_id),
        [len(e["input_ids"]) for e in examples],
        assets.cache_dir() / "outputs" / key,
        layers=layers,
        say=report,
    )


def cached_rows(cache: TeacherCache, part: Any, pad_id: int, place: int = -1) -> Tensor:
    """Cached teacher features of all tokens of the examples of `part`, (tokens, d).

    `place` says which of the cached layers, in their order.
    """
    batch = collate(pad_id, ("input_ids", "row"), list(part))
    mask = batch["attention_mask"].bool()
    layer = cache.manifest["layers"][place]
    return cache.lookup(batch["row"], mask, [layer]).features[layer][mask]


def _tokenise(
    tokenizer: Any,
    columns: tuple[str, ...],
    length: int,
    scale: tuple[float, float] | None,
    batch: dict[str, list[Any]],
    rows: list[int],
) -> dict[str, Any]:
    texts = [batch[c] for c in columns]
    ids = tokenizer(*texts, truncation=True, max_length=length)["input_ids"]
    labels = batch["label"]
    if scale is not None:
        labels = [(label - scale[0]) / scale[1] for label in labels]
    return {"input_ids": ids, "labels": labels, "row": rows}
