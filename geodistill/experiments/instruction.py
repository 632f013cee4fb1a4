"""Instruction following: an instruction-tuned language model teaches a small OPT.

The teacher is SmolLM2-135M-Instruct with the project's LoRA adapter; the student has the OPT
architecture, untrained but for its embeddings, and the teacher's tokenizer. All methods of one seed
share the start and the order of batches; the prompts are the same for every seed.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
    build_cache,
    opt_student,
)
from geodistill.distill.cache import cache_key
from geodistill.distill.capture import head_on_rows
from geodistill.distill.terms import kept_rows
from geodistill.errors import InputError
from geodistill.experiments.protocol import (
    INSTRUCTION_METHODS,
    Geometry,
    check_method,
    feature_loss,
    uses_teacher_logits,
)
from geodistill.experiments.store import Run, data_dir
from geodistill.experiments.training import (
    fit,
    in_batches,
    pad,
    quiet,
    scratch,
    training_arguments,
)
from geodistill.losses import KLDivergenceLoss
from geodistill.tasks import assets, load_instructions
from geodistill.tasks.base import fraction

Report = Callable[[str], None]
Example = dict[str, Any]
STUDY = "exploratory/instruction"
INIT, ORDER = 1_000, 2_000
"""Added to a run's seed: its seeds of start and order never coincide."""


@dataclass(frozen=True)
class InstructionSetting:
    """One study point; two runs with equal settings, method and seed are the same run.

    Attributes:
        task: name of an instruction set.
        teacher: "smollm2", the embedded one, or a folder or hub name of a causal language model.
        n_train, n_test: prompts used, the same for every seed.
        width, layers: of the OPT student.
        weight: fixed factor of a feature term (a gradient-norm match misleads for decoders).
        top_k: teacher logits stored at each response position, beside the mass of the rest.
        max_length: longest prompt with answer, in tokens; longer pairs are left out.
        new_tokens: longest answer generated.
        adapter: folder name under data/adapters, or empty for the teacher as it came.
    """

    task: str = "embedded"
    teacher: str = "smollm2"
    n_train: int = 600
    n_test: int = 300
    epochs: float = 6.0
    batch_size: int = 32
    learning_rate: float = 1e-3
    width: int = 256
    layers: int = 4
    kd_share: float = 0.5
    weight: float = 1.0
    top_k: int = 64
    max_length: int = 160
    new_tokens: int = 32
    adapter: str = "smollm2-embedded"


def smoke() -> InstructionSetting:
    """The smallest setting that runs every line with the real teacher: half a minute."""
    return InstructionSetting(
        n_train=16, n_test=8, epochs=1.0, batch_size=8, width=64, layers=1, new_tokens=4
    )


@dataclass(frozen=True)
class InstructionRoom:
    """An instruction set with its teacher, tokenised, its outputs cached.

    Attributes:
        train, test: examples with input_ids, labels (-100 on the prompt), prompt_ids, item, source,
            completion.
        left_out: pairs longer than `max_length`.
        cache: teacher outputs of the training examples.
    """

    setting: InstructionSetting
    teacher: Any
    tokenizer: Any
    train: list[Example]
    test: list[Example]
    left_out: int
    cache: TeacherCache
    data_hash: str


def load_teacher(name: str, adapter: str) -> tuple[Any, Any]:
    """A causal language model, with an adapter of data/adapters merged in, and its tokenizer.

    Raises:
        InputError: no such adapter.
    """
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stored = data_dir() / "adapters" / adapter if adapter else None
    if stored and not (stored / "adapter_model.safetensors").is_file():
        raise InputError(f"adapter is {adapter!r}; {stored} has no adapter_model.safetensors")
    quiet()
    where: dict[str, Any] = {"pretrained_model_name_or_path": name}
    if name == "smollm2":
        folder, file = assets.path("smollm2"), assets.SMOLLM2_GGUF
        where = {"pretrained_model_name_or_path": folder, "gguf_file": file}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    model.is_quantized = False  # GGUF weights are whole again once loaded, and may be trained
    if stored:
        model = PeftModel.from_pretrained(model, stored).merge_and_unload()
    model.train(False)
    return model, tokenizer


def encode(tokenizer: Any, row: dict[str, Any]) -> Example:
    """A prompt, a line break, the answer and the end token; labels on answer and end only."""
    prompt = tokenizer(row["prompt"] + "\n")["input_ids"]
    answer = [*tokenizer(row["completion"])["input_ids"], tokenizer.eos_token_id]
    return {
        "input_ids": prompt + answer,
        "labels": [-100] * len(prompt) + answer,
        "prompt_ids": prompt,
        **{name: row[name] for name in ("item", "source", "completion")},
    }


def choose(rows: Any, n: int, tokenizer: Any, max_length: int) -> tuple[list[Example], int]:
    """The first `n` pairs in the order of their ids' hash, and how many were too long on the way.

    Raises:
        InputError: fewer than `n` pairs fit.
    """
    chosen: list[Example] = []
    left_out = 0
    for row in sorted(rows, key=lambda row: fraction(row["item"])):
        example = encode(tokenizer, row)
        if len(example["input_ids"]) > max_length:
            left_out += 1
            continue
        chosen.append({**example, "row": len(chosen)})
        if len(chosen) == n:
            return chosen, left_out
    raise InputError(f"{n} pairs asked for, {len(chosen)} have at most {max_length} tokens")


def open_instruction_room(
    setting: InstructionSetting, report: Report = lambda line: None
) -> InstructionRoom:
    """Load prompts and teacher, and run the teacher once over the training prompts.

    Raises:
        InputError: unknown set or adapter, too few prompts.
    """
    data = load_instructions(setting.task)
    report("loading the teacher")
    teacher, tokenizer = load_teacher(setting.teacher, setting.adapter)
    train_rows, left = choose(data.train, setting.n_train, tokenizer, setting.max_length)
    test_rows, left_test = choose(data.test, setting.n_test, tokenizer, setting.max_length)
    key = cache_key(
        json.dumps([e["input_ids"] for e in train_rows]), setting.teacher, _digest(setting.adapter),
        str(setting.top_k),
    )  # fmt: skip
    cache = build_cache(
        teacher,
        in_batches([_inputs(e) for e in train_rows], 16, tokenizer.pad_token_id),
        [sum(label != -100 for label in e["labels"]) for e in train_rows],
        assets.cache_dir() / "outputs" / key,
        layers=(-1,),
        top_k=setting.top_k,
        report=lambda done, total: report(f"teacher: {done} of {total} prompts"),
    )
    return InstructionRoom(
        setting, teacher, tokenizer, train_rows, test_rows, left + left_test, cache, data.data_hash
    )


def _digest(adapter: str) -> str:
    import hashlib

    if not adapter:
        return ""
    weights = data_dir() / "adapters" / adapter / "adapter_model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def _inputs(example: Example) -> Example:
    return {"input_ids": example["input_ids"], "labels": example["labels"]}


def _collate(pad_id: int, examples: list[Example]) -> dict[str, Tensor]:
    return pad([{**_inputs(e), "row": e["row"]} for e in examples], pad_id)


def start_student(room: InstructionRoom, seed: int) -> Any:
    """The untrained student of a seed, the same for every method."""
    setting = room.setting
    return opt_student(
        room.teacher,
        width=setting.width,
        layers=setting.layers,
        positions=setting.max_length + setting.new_tokens,
        seed=INIT + seed,
    )


def run_instruction(room: InstructionRoom, method: str, seed: int) -> tuple[Run, Any]:
    """Train and score one student.

    Args:
        room: the prompts and their teacher.
        method: one of `INSTRUCTION_METHODS`.
        seed: of the start and the order.

    Returns:
        The run, whose items carry the generated `answer`, and the trained student.

    Raises:
        InputError: unknown method.
    """
    check_method(method, INSTRUCTION_METHODS)
    started = time.perf_counter()
    setting = room.setting
    student = start_student(room, seed)
    with scratch() as folder:
        trainer = FeatureDistillationTrainer(
            model=student,
            args=training_arguments(
                Path(folder),
                seed=ORDER + seed,
                num_train_epochs=setting.epochs,
                per_device_train_batch_size=setting.batch_size,
                learning_rate=setting.learning_rate,
                remove_unused_columns=False,
            ),
            train_dataset=room.train,
            data_collator=partial(_collate, room.tokenizer.pad_token_id),
            **_distillation(room, method, seed),
        )
        fit(trainer)
    metrics, items = score(student, room.tokenizer, room.test, setting.new_tokens)
    run = Run(
        STUDY, setting.task, method, seed, instruction_config(setting, method), room.data_hash,
        metrics, items, wall_seconds=time.perf_counter() - started,
    )  # fmt: skip
    return run, student


def instruction_config(setting: InstructionSetting, method: str) -> dict[str, Any]:
    """Everything that a run of `method` depends on besides its seed and the data."""
    return {**asdict(setting), "method": method}


def _distillation(room: InstructionRoom, method: str, seed: int) -> dict[str, Any]:
    """Arguments of the mixin for one method; none for learning from the answers alone."""
    if not uses_teacher_logits(method):
        return {}
    setting = room.setting
    width = room.teacher.config.hidden_size

    def teacher_rows() -> Tensor:
        layer = room.cache.manifest["layers"][0]
        return torch.tensor(room.cache.array(f"features_{layer}")).float()

    loss = feature_loss(method, Geometry(setting.width, width, teacher_rows, seed))
    return {
        "teacher_cache": room.cache,
        "terms": [] if loss is None else [FeatureTerm(-1, -1, loss, weight=setting.weight)],
        "logit_loss": KLDivergenceLoss(),
        "task_weight": 1 - setting.kd_share,
        "logit_weight": setting.kd_share,
    }


@torch.no_grad()
def score(
    model: Any, tokenizer: Any, examples: list[Example], new_tokens: int
) -> tuple[dict[str, float], pd.DataFrame]:
    """Negative log-likelihood per answer token (nats), Rouge-L and exact match of greedy answers.

    Returns:
        Metrics (`nll` over all tokens; `rougeL`, `exact_match` means in 0..1), and a row an item.
    """
    from rouge_score.rouge_scorer import RougeScorer

    model.eval()
    total = torch.zeros(len(examples), dtype=torch.float64)
    count = torch.zeros(len(examples), dtype=torch.float64)
    for batch in in_batches([_inputs(e) for e in examples], 32, tokenizer.pad_token_id):
        mask = kept_rows(batch)
        rows, labels = batch.pop("row"), batch.pop("labels")
        with head_on_rows(model, mask):
            logits = model(**batch).logits.float()
        targets = labels[:, 1:][mask[:, :-1]]
        nll = torch.nn.functional.cross_entropy(logits, targets, reduction="none").double()
        total.index_add_(0, rows.repeat_interleave(mask.sum(1)), nll)
        count[rows] = mask.sum(1).double()
    answers = generate(model, tokenizer, examples, new_tokens)
    rouge = RougeScorer(["rougeL"])
    wanted = [e["completion"] for e in examples]
    items = pd.DataFrame(
        {
            "item": [e["item"] for e in examples],
            "source": [e["source"] for e in examples],
            "score": (-total / count).numpy(),
            "nll": (total / count).numpy(),
            "rougeL": [
                rouge.score(a, b)["rougeL"].fmeasure for a, b in zip(wanted, answers, strict=True)
            ],
            "exact_match": [
                float(a.strip() == b.strip()) for a, b in zip(wanted, answers, strict=True)
            ],
            "answer": answers,
        }
    )
    metrics = {
        "nll": float(total.sum() / count.sum()),
        "rougeL": float(items["rougeL"].mean()),
        "exact_match": float(items["exact_match"].mean()),
    }
    return metrics, items


@torch.no_grad()
def generate(model: Any, tokenizer: Any, examples: list[Example], new_tokens: int) -> list[str]:
    """Greedy answers, batched with padding on the left and a key-value cache."""
    answers = [""] * len(examples)
    order = sorted(range(len(examples)), key=lambda i: len(examples[i]["prompt_ids"]))
    for start in range(0, len(order), 32):
        rows = order[start : start + 32]
        prompts = [examples[i]["prompt_ids"] for i in rows]
        length = max(map(len, prompts))
        blank = [length - len(p) for p in prompts]
        out = model.generate(
            input_ids=torch.tensor(
                [[tokenizer.pad_token_id] * k + p for k, p in zip(blank, prompts, strict=True)]
            ),
            attention_mask=torch.tensor(
                [[0] * k + [1] * len(p) for k, p in zip(blank, prompts, strict=True)]
            ),
            max_new_tokens=new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        texts = tokenizer.batch_decode(out[:, length:], skip_special_tokens=True)
        for i, text in zip(rows, texts, strict=True):
            answers[i] = text
    return answers
