"""Feature distillation for `transformers.Trainer` and every trainer built on it."""

from collections.abc import Sequence
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from geodistill.distill import checks
from geodistill.distill.callbacks import (
    ClearGradients,
    NotedLosses,
    WatchWindows,
    load_terms,
    save_terms,
    share_of_items,
)
from geodistill.distill.collate import OWN
from geodistill.distill.cross_tokenizer import TeachersTokens, why_other_tokens
from geodistill.distill.feature_term import (
    BalancedTerm,
    FeatureTerm,
    balanced,
    kept_rows,
    labels_tokens,
)
from geodistill.distill.hooks import head_on_rows, language_head, recorded
from geodistill.distill.teacher_cache import TeacherCache, TeacherOutputs
from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class FeatureDistillation(_Base):
    """Mixin for any `transformers` trainer: task loss + logit KD + feature terms.

    The loss of a step is

        task_weight * task + logit_weight * logit_loss + sum(term.weight * term.loss)

    Under gradient accumulation the task and logit losses are means over the items of the whole
    accumulated batch; feature terms, which do not add up over micro-batches, are the *mean of their
    micro-batch values*: the geometry batch is the micro-batch. Parameters of a term (a learned
    projection) join the optimiser without weight decay or gradient clipping, are saved in
    checkpoints, and never in an exported model. A loss that is not finite, or teacher that makes it
    so, raises FloatingPointError with its name and the step; the batch is saved in output_dir.

    Features are those of the trainer's own forward pass. A trainer that takes a `teacher_model`
    itself and runs it (TRL's GKDTrainer) is given it, and its teacher is not run again.

    Args:
        teacher_model: runs live, frozen, in eval mode, on the student's tokens, or on its own ones
            where the examples have `teacher_input_ids` (and `teacher_labels`): then no loss may
            compare token with token, and each side's rows are chosen by its own mask.
        teacher_cache: stored outputs instead; training examples need a `row` column, their index
            in the cache. Exactly one of the two is needed where logits or features are asked for.
        teacher_tokenizer: compared with the student's, `processing_class`.
        terms: the feature terms.
        logit_loss: compares student and teacher logits; None for no logit distillation.
        task_weight, logit_weight: factors, at least 0.
        **kwargs: of the trainer below.

    Raises:
        InputError: no such layer, no teacher, a cache that lacks what the terms need, logits of
            different size, a loss that other tokens forbid, several GPUs in one process. All before
            the first step.
    """

    # We divide by the number of micro-batches ourselves, loss by loss.
    loss_is_scaled_for_ga: bool | None = True

    def __init__(
        self,
        *args: Any,
        teacher_model: nn.Module | None = None,
        teacher_cache: TeacherCache | None = None,
        teacher_tokenizer: Any = None,
        terms: Sequence[FeatureTerm] = (),
        logit_loss: KLDivergenceLoss | None = None,
        task_weight: float = 1.0,
        logit_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        runs_teacher = "teacher_model" in signature(super().__init__).parameters
        if runs_teacher:
            kwargs["teacher_model"] = teacher_model
        super().__init__(*args, **kwargs)
        if not runs_teacher:
            self.teacher_model = teacher_model
        self.teacher_cache = teacher_cache
        self.logit_loss = logit_loss
        self.task_weight, self.logit_weight = task_weight, logit_weight
        self.terms = nn.ModuleList(balanced(terms)).to(self.args.device)
        self.add_callback(ClearGradients(self.terms))
        self.add_callback(WatchWindows(self.terms))
        self._losses = NotedLosses(Path(str(self.args.output_dir)))
        self._check_needs(teacher_tokenizer, runs_teacher)

    def _check_needs(self, teacher_tokenizer: Any, runs_teacher: bool) -> None:
        """Every need of the losses must meet an offer of the teacher before any step runs."""
        teacher, cache = self.teacher_model, self.teacher_cache
        student = self.accelerator.unwrap_model(self.model)
        checks.check_weights(task_weight=self.task_weight, logit_weight=self.logit_weight)
        terms = [term.term for term in self._each_term()]
        by_token = self.logit_loss is not None and language_head(student) is not None
        self._tokens = TeachersTokens(terms, by_token, type(self).__name__ if runs_teacher else "")
        self._layers: list[tuple[int, int]] = []
        if terms or self.logit_loss is not None:
            checks.check_teacher(teacher, cache)
            self._layers = checks.layer_pairs(terms, teacher, cache, student)
            tokenizer = getattr(self, "processing_class", None)
            self._tokens.differ(why_other_tokens(tokenizer, teacher_tokenizer, self.train_dataset))
            if self.logit_loss is not None:
                checks.check_logits(self.logit_loss, teacher, cache, student)
            if teacher is not None and teacher_tokenizer is None and not self._tokens.reason:
                checks.check_embeddings(teacher, student)
        if teacher is not None:
            teacher.to(self.args.device).eval().requires_grad_(False)
        checks.check_processes(self.terms, self.args.world_size)
        checks.check_gpus(self.args.n_gpu)

    def _each_term(self) -> list[BalancedTerm]:
        return [term for term in self.terms if isinstance(term, BalancedTerm)]

    # ---- the loss of a step ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The distillation loss in training, the trainer's own loss in evaluation."""
        inputs = dict(inputs)
        rows = inputs.pop("row", None)
        batch = dict(inputs)
        own = self._tokens.take(inputs)
        checks.check_length(inputs, self.accelerator.unwrap_model(model), "student")
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        share = 1 / self.current_gradient_accumulation_steps
        part: float | Tensor = share
        if num_items_in_batch is not None:
            # The count may be that of all ranks, whose gradients are then averaged.
            ranks = self.args.world_size if self.args.average_tokens_across_devices else 1
            part = ranks * share_of_items(inputs, num_items_in_batch)
        distils = self.logit_loss is not None or len(self.terms) > 0
        with recorded(self.teacher_model if distils else None, grad=False) as said:
            if self._scores_rows_alone(inputs) and not return_outputs:
                task, outputs, hidden = self._row_loss(model, inputs)
            else:
                task, outputs, hidden = self._trainers_loss(model, inputs, return_outputs)
        loss = self.task_weight * task * part
        self._losses.add("task", task * part / share)
        if distils:
            # Before other losses refuse what a diverged student gives them.
            self._losses.check(self.state.global_step, batch)
            mask = kept_rows(inputs)
            given = self._tokens.given(inputs, mask, own, self.teacher_cache is not None)
            teacher = self._teacher_outputs(*given, rows, said)
            with self._losses.blame_teacher_if_nonfinite(teacher, self.state.global_step, batch):
                if self.logit_loss is not None:
                    logit = self._logit_term(outputs["logits"], teacher, mask)
                    loss = loss + self.logit_weight * logit * part
                    self._losses.add("logit", logit * part / share)
                if len(self.terms):
                    loss = self._add_feature_terms(loss, hidden, teacher, mask, share)
                self._losses.check(self.state.global_step, batch)
        self._losses.check(self.state.global_step, batch)
        return (loss, outputs) if return_outputs else loss

    def _trainers_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool
    ) -> tuple[Tensor, Any, Sequence[Tensor]]:
        """The loss of the trainer below, its outputs where they are wanted, the student's features.

        It gets no count of items, which some models divide by and others ignore: the loss is a
        mean. It may change what it is given (label smoothing takes the labels out). Outputs cost
        TRL's trainers a second forward pass.
        """
        wanted = return_outputs or self.logit_loss is not None
        student = self.accelerator.unwrap_model(model) if len(self.terms) else None
        with recorded(student, grad=True) as seen:
            found: Any = super().compute_loss(model, dict(inputs), wanted)
        task, outputs = found if wanted else (found, None)
        return task, outputs, seen[0].hidden_states if seen else ()

    def _scores_rows_alone(self, inputs: dict[str, Any]) -> bool:
        """Whether the task loss is the plain next-token cross-entropy, which `_row_loss` is."""
        plain = super().compute_loss.__func__ is Trainer.compute_loss  # type: ignore[attr-defined]
        custom = self.label_smoother is not None or self.compute_loss_func is not None
        return plain and not custom and self._loss_shifts_labels and labels_tokens(inputs)

    def _row_loss(
        self, model: nn.Module, inputs: dict[str, Any]
    ) -> tuple[Tensor, Any, Sequence[Tensor]]:
        """Mean cross-entropy of the labelled tokens, the head computed for them alone."""
        mask = kept_rows(inputs)
        given = {k: v for k, v in inputs.items() if k != "labels"}
        with head_on_rows(self.accelerator.unwrap_model(model), mask):
            outputs = model(**given, output_hidden_states=bool(len(self.terms)))
        targets = inputs["labels"][:, 1:][mask[:, :-1]]
        task = nn.functional.cross_entropy(outputs["logits"].float(), targets)
        return task, outputs, outputs.get("hidden_states", ())

    def _teacher_outputs(
        self, inputs: dict[str, Any], mask: Tensor | None, rows: Tensor | None, said: list[Any]
    ) -> TeacherOutputs:
        """From the cache, from what the trainer below had the teacher say, or by running it."""
        layers = {teacher for teacher, _ in self._layers}
        if self.teacher_cache is not None:
            if rows is None:
                raise InputError("the batch has no `row` column, which teacher_cache is read by")
            return self.teacher_cache.lookup(rows, mask, layers)
        assert self.teacher_model is not None
        assert mask is not None
        checks.check_length(inputs, self.teacher_model, "teacher")
        tokens = labels_tokens(inputs)
        if said:
            out = said[-1]
            logits = out.logits[mask] if tokens else out.logits
            return TeacherOutputs(logits, {i: out.hidden_states[i] for i in layers}, mask=mask)
        given = {k: v for k, v in inputs.items() if k != "labels"}
        with torch.no_grad(), head_on_rows(self.teacher_model, mask) if tokens else nullcontext():
            out = self.teacher_model(**given, output_hidden_states=bool(layers))
        return TeacherOutputs(out.logits, {i: out.hidden_states[i] for i in layers}, mask=mask)

    def _logit_term(self, student: Tensor, teacher: TeacherOutputs, mask: Tensor) -> Tensor:
        """Mean logit loss over the micro-batch's items."""
        assert self.logit_loss is not None
        if not student.requires_grad:
            raise InputError(
                f"logit_loss: the trainer below {type(self).__name__} gives logits without "
                "gradient; give no logit_loss, or use FeatureDistillationTrainer"
            )
        if student.dim() == 3:
            student = student[mask]
        value: Tensor = self.logit_loss(*teacher.comparable_logits(student))
        return value

    def _add_feature_terms(
        self,
        loss: Tensor,
        hidden: Sequence[Tensor],
        teacher: TeacherOutputs,
        mask: Tensor,
        share: float,
    ) -> Tensor:
        base = loss / share
        for term, layers in zip(self._each_term(), self._layers, strict=True):
            teacher_layer, student_layer = layers
            features = hidden[student_layer]
            value = term(features, teacher.features[teacher_layer], mask, teacher.mask)
            self._losses.add(term.name, value)
            if term.balancing:
                term.measure(base, value, features)
            loss = loss + term.weight * share * value
            self._losses.values[f"{term.name} weight"].append(term.weight)
        return loss

    def term_weights(self) -> dict[str, float]:
        """The factor in force of each term, for the record: `{"weight/CKALoss[-1--1]": ...}`."""
        return {f"weight/{term.name}": term.weight for term in self._each_term()}

    # ---- logs, optimiser, checkpoints ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each loss since the last log, unweighted."""
        if "loss" in logs:
            logs.update(self._losses.take_means())
        super().log(logs, start_time)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        columns += [name for name in ("row", *OWN) if name not in columns]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The trainer's optimiser, made or given, with the terms' own weights as a last group."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        own = [p for p in self.terms.parameters() if p.requires_grad and id(p) not in known]
        if own:
            optimizer.add_param_group({"params": own, "weight_decay": 0.0})
        return optimizer

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and len(self.terms):
            save_terms(self.terms, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and len(self.terms):
            load_terms(self.terms, Path(checkpoint))


class FeatureDistillationTrainer(FeatureDistillation, Trainer):
    """`transformers.Trainer` with `FeatureDistillation`."""
