"""Feature distillation for `transformers.Trainer` and every trainer built on it."""

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer

from geodistill.distill import callbacks, checks, cross_tokenizer
from geodistill.distill.collate import TEACHER_COLUMNS
from geodistill.distill.feature_term import FeatureTerm, has_token_labels, loss_mask, term_modules
from geodistill.distill.hooks import lm_head, record_outputs, teacher_forward, token_loss
from geodistill.distill.teacher_cache import TeacherCache, TeacherOutputs
from geodistill.errors import InputError
from geodistill.losses import KLDivergenceLoss

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


class FeatureDistillation(_Base):
    """Mixin for any `transformers` trainer, whose loss becomes

        task_weight * task + logit_weight * logit_loss + sum(term.weight * term.loss)

    Under gradient accumulation the task and logit losses are means over the items of the whole
    accumulated batch; feature terms, which do not add up over micro-batches, are the *mean of their
    micro-batch values*: the geometry batch is the micro-batch. Parameters of a term (a learned
    projection) join the optimiser without weight decay or gradient clipping; they are saved in
    checkpoints, and not in an exported model. A non-finite loss, or a teacher that causes one,
    raises FloatingPointError with its name and step; the batch is saved in `output_dir`.

    Features are those of the trainer's own forward pass. A trainer that takes a `teacher_model`
    and runs it (TRL's GKDTrainer) receives it, and the teacher is not run again.

    Args:
        teacher_model: run in each step, frozen, in eval mode; on the student's tokens, or on
            `teacher_input_ids` (with `teacher_labels`) of the examples: then no loss may compare
            token with token, and each side's positions follow its own mask.
        teacher_cache: stored outputs instead; training examples need a `row` column, their index
            in the cache. With logits or features to compare, exactly one of the two is needed.
        teacher_tokenizer: compared with the student's, `processing_class`.
        terms: the feature terms.
        logit_loss: compares student and teacher logits; None for no logit distillation.
        task_weight: factor of the task loss, at least 0.
        logit_weight: factor of the logit loss, at least 0.
        **kwargs: of the trainer that the mixin extends.

    Raises:
        InputError: before the first step: no such layer, no teacher, a cache that lacks what the
            terms need, logits of different size, a loss that needs equal tokens where they differ,
            several GPUs in one process.

    Example:
        >>> class Distiller(FeatureDistillation, Trainer):
        ...     pass  # works with trl.SFTTrainer and others in the place of Trainer
        >>> [base.__name__ for base in Distiller.__mro__[1:3]]
        ['FeatureDistillation', 'Trainer']
    """

    # compute_loss divides by the number of micro-batches itself, separately for each loss.
    loss_is_scaled_for_ga: bool | None = True

    def __init__(
        self,
        *args: Any,
        teacher_model: nn.Module | None = None,
        teacher_cache: TeacherCache | None = None,
        teacher_tokenizer: PreTrainedTokenizerBase | None = None,
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
        self._terms, self._term_modules = terms, term_modules(terms)
        self.terms = nn.ModuleList(self._term_modules).to(self.args.device)
        self.add_callback(callbacks.ZeroTermGrads(self.terms))
        self.add_callback(callbacks.WarnUnclosedWindow(self.terms))
        self._losses = callbacks.LossLog(Path(str(self.args.output_dir)))
        self._distils = logit_loss is not None or len(self.terms) > 0
        self._wrapped = type(self).__name__ if runs_teacher else ""
        self._mismatch = ""  # why the teacher reads other token ids, if it does
        self._layers: list[tuple[int, int]] = []
        self._check_needs(teacher_tokenizer)

    def _check_needs(self, teacher_tokenizer: PreTrainedTokenizerBase | None) -> None:
        """What the losses need must match what the teacher offers, before any step runs."""
        teacher, cache = self.teacher_model, self.teacher_cache
        student = self.accelerator.unwrap_model(self.model)
        checks.check_weights(task_weight=self.task_weight, logit_weight=self.logit_weight)
        if self._distils:
            checks.check_teacher(teacher, cache)
            self._layers = checks.resolve_layer_pairs(self._terms, teacher, cache, student)
            tokenizer = getattr(self, "processing_class", None)
            self._set_mismatch(
                cross_tokenizer.tokenizer_mismatch(tokenizer, teacher_tokenizer, self.train_dataset)
            )
            if self.logit_loss is not None:
                checks.check_logits(self.logit_loss, teacher, cache, student)
            if teacher is not None and teacher_tokenizer is None and not self._mismatch:
                checks.check_embeddings(teacher, student)
        if teacher is not None:
            teacher.to(self.args.device).eval().requires_grad_(False)
        checks.check_processes(self.terms, self.args.world_size, self.args.n_gpu)

    def _set_mismatch(self, mismatch: str) -> None:
        self._mismatch = mismatch
        student = self.accelerator.unwrap_model(self.model)
        token_logits = self.logit_loss is not None and lm_head(student) is not None
        cross_tokenizer.refuse_token_losses(mismatch, self._terms, token_logits, self._wrapped)

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
        teacher_batch = cross_tokenizer.pop_teacher_inputs(inputs)
        if teacher_batch and not self._mismatch:  # added by the collator, so not seen before
            self._set_mismatch("the batch has teacher_input_ids, tokens of another tokenizer")
        student = self.accelerator.unwrap_model(model)
        checks.check_length(inputs, student, "student")
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        share = 1 / self.current_gradient_accumulation_steps
        item_share: float | Tensor = share
        if num_items_in_batch is not None:
            # The count may be that of all ranks, whose gradients are then averaged.
            ranks = self.args.world_size if self.args.average_tokens_across_devices else 1
            item_share = ranks * callbacks.label_fraction(inputs, num_items_in_batch)
        step = self.state.global_step
        observed = self.teacher_model if self._distils else None
        with record_outputs(observed, grad=False) as teacher_calls:
            if self._has_plain_token_loss(inputs) and not return_outputs:
                task, outputs, hidden = token_loss(model, student, inputs, bool(len(self.terms)))
            else:
                task, outputs, hidden = self._inherited_loss(model, inputs, return_outputs)
        loss = self.task_weight * task * item_share
        self._losses.add("task", task * item_share / share)
        # Now, since other losses would refuse the outputs of a diverged student.
        self._losses.check_finite(step, batch)
        if self._distils:
            teacher_reads = teacher_batch if self._mismatch else inputs
            teacher = self._teacher_outputs(teacher_reads, rows, teacher_calls)
            mask = loss_mask(inputs)
            with self._losses.blame_teacher_if_nonfinite(teacher, step, batch):
                if self.logit_loss is not None:
                    logit = self._logit_term(outputs["logits"], teacher, mask)
                    loss = loss + self.logit_weight * logit * item_share
                    self._losses.add("logit", logit * item_share / share)
                if len(self.terms):
                    loss = self._add_feature_terms(loss, hidden, teacher, mask)
                self._losses.check_finite(step, batch)
        return (loss, outputs) if return_outputs else loss

    def _inherited_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool
    ) -> tuple[Tensor, Any, Sequence[Tensor]]:
        """Loss of the extended trainer, its outputs if they are needed, the student's features.

        The loss is a mean: it gets no count of items, by which some models divide and others do
        not. Outputs cost TRL's trainers a second forward pass.
        """
        with_outputs = return_outputs or self.logit_loss is not None
        student = self.accelerator.unwrap_model(model) if len(self.terms) else None
        inputs = dict(inputs)  # label smoothing removes the labels
        with record_outputs(student, grad=True) as calls:
            result: Any = super().compute_loss(model, inputs, with_outputs)
        task, outputs = result if with_outputs else (result, None)
        return task, outputs, calls[0].hidden_states if calls else ()

    def _has_plain_token_loss(self, inputs: dict[str, Any]) -> bool:
        """Whether the task loss is the plain next-token cross-entropy of `token_loss`."""
        plain = super().compute_loss.__func__ is Trainer.compute_loss  # type: ignore[attr-defined]
        custom = self.label_smoother is not None or self.compute_loss_func is not None
        return plain and not custom and self._loss_shifts_labels and has_token_labels(inputs)

    def _teacher_outputs(
        self, inputs: dict[str, Any], rows: Tensor | None, calls: list[Any]
    ) -> TeacherOutputs:
        """From the cache, from the extended trainer's calls of the teacher, or by running it."""
        layers = {teacher_layer for teacher_layer, _ in self._layers}
        if self.teacher_cache is not None:
            if rows is None:
                raise InputError("the batch has no `row` column, which teacher_cache is read by")
            return self.teacher_cache.lookup(rows, loss_mask(inputs) if inputs else None, layers)
        assert self.teacher_model is not None
        cross_tokenizer.require_teacher_inputs(inputs, self._mismatch)
        checks.check_length(inputs, self.teacher_model, "teacher")
        mask = loss_mask(inputs)
        out = (
            calls[-1] if calls else teacher_forward(self.teacher_model, inputs, mask, bool(layers))
        )
        logits = out.logits[mask] if calls and has_token_labels(inputs) else out.logits
        return TeacherOutputs(logits, {i: out.hidden_states[i] for i in layers}, mask=mask)

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
        value: Tensor = self.logit_loss(*teacher.aligned_logits(student))
        return value

    def _add_feature_terms(
        self, loss: Tensor, hidden: Sequence[Tensor], teacher: TeacherOutputs, mask: Tensor
    ) -> Tensor:
        share = 1 / self.current_gradient_accumulation_steps
        base_loss = loss / share
        for term, layers in zip(self._term_modules, self._layers, strict=True):
            teacher_layer, student_layer = layers
            features = hidden[student_layer]
            value = term(features, teacher.features[teacher_layer], mask, teacher.mask)
            self._losses.add(term.name, value)
            if term.warming_up:
                term.measure(base_loss, value, features)
            loss = loss + term.weight * share * value
            self._losses.values[f"{term.name} weight"].append(term.weight)
        return loss

    def term_weights(self) -> dict[str, float]:
        """Each term's current factor, for run records: `{"weight/CKALoss[-1--1]": 1.0}`."""
        return {f"weight/{term.name}": term.weight for term in self._term_modules}

    # ---- logs, optimiser, checkpoints ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each unweighted loss since the last log."""
        if "loss" in logs:
            logs.update(self._losses.pop_means())
        super().log(logs, start_time)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        columns += [name for name in ("row", *TEACHER_COLUMNS) if name not in columns]

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The trainer's optimiser, with the terms' parameters as one more group."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        known = {id(p) for group in optimizer.param_groups for p in group["params"]}
        new = [p for p in self.terms.parameters() if p.requires_grad and id(p) not in known]
        if new:
            optimizer.add_param_group({"params": new, "weight_decay": 0.0})
        return optimizer

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save and len(self.terms):
            callbacks.save_terms(self.terms, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and len(self.terms):
            callbacks.load_terms(self.terms, Path(checkpoint))


class FeatureDistillationTrainer(FeatureDistillation, Trainer):
    """`transformers.Trainer` with `FeatureDistillation`.

    Example:
        >>> from geodistill.losses import ProcrustesLoss
        >>> from transformers import BertConfig, BertForSequenceClassification, TrainingArguments
        >>> config = BertConfig(hidden_size=48, num_hidden_layers=1)
        >>> student, teacher = (BertForSequenceClassification(config) for _ in range(2))
        >>> term = FeatureTerm(-1, -1, ProcrustesLoss(), weight=2.0)
        >>> arguments = TrainingArguments(use_cpu=True)
        >>> FeatureDistillationTrainer(
        ...     student, arguments, teacher_model=teacher, terms=[term]
        ... ).term_weights()
        {'weight/ProcrustesLoss[-1--1]': 2.0}
    """
