"""Feature distillation for `transformers.Trainer` and every trainer built on it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, Trainer

from geodistill.distill import callbacks, checks, cross_tokenizer
from geodistill.distill.collate import TEACHER_PREFIX
from geodistill.distill.feature_term import FeatureTerm, Layer, term_modules
from geodistill.distill.hooks import record_outputs
from geodistill.distill.models.heads import lm_head
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.distill.training import checkpoints, ranks, report, step, step_inputs
from geodistill.losses import LogitLoss

if TYPE_CHECKING:
    _Base = Trainer
else:
    _Base = object


_CACHED = ("input_ids", "attention_mask", "labels")  # kept for a check of stored outputs


class FeatureDistillation(_Base):
    """Mixin for any `transformers` trainer, whose loss becomes

        task_weight * task + logit_weight * logit_loss + sum(term.weight * term.loss)

    The task loss is the extended trainer's own. Under gradient accumulation the task and logit
    losses are means over the items of the whole accumulated batch; feature terms, which do not add
    up over micro-batches, are the *mean of their micro-batch values*: the geometry batch is the
    micro-batch, of all processes together. Parameters of a term (a learned projection) join the
    optimiser without weight decay or gradient clipping; they are saved in checkpoints, and not in
    an exported model. Each training starts with the terms as they were given. A non-finite loss or
    gradient, or a teacher that causes one, raises FloatingPointError with its name and step.

    Features are those of the trainer's own forward pass. A trainer that runs a `teacher_model`
    itself (TRL's) receives it, and the teacher is not run again. The columns that the teacher's
    forward names reach it. Examples need no labels if `task_weight` is 0.

    With a live teacher that this class runs, evaluation adds `eval_loss/NAME` of each term and
    `eval_geometry_kept`, the mean over terms of `geometry.geometry_kept` by Procrustes distance.

    Args:
        teacher_model: any module, run in each step, frozen, in eval mode; on the student's inputs,
            or on `teacher_input_ids` (with `teacher_labels`) of the examples: then no loss may
            compare token with token, and each side's positions follow its own mask.
        teacher_cache: stored outputs instead; training examples need a `row` column, their index
            in the cache. With logits or features to compare, exactly one of the two is needed.
        teacher_tokenizer: compared with the student's, `processing_class`. If they are the same,
            the extra rows of a larger vocabulary are padding, and their logits are left out.
        terms: the feature terms.
        logit_loss: compares student and teacher logits; "auto" is the one of the student's head
            (`losses.logit_loss_for`); None for no logit distillation.
        task_weight: factor of the task loss, at least 0.
        logit_weight: factor of the logit loss, at least 0.
        **kwargs: of the trainer that the mixin extends.

    Raises:
        InputError: before the first step: no such layer, no teacher, a cache that lacks what the
            terms need, logits of different size or of another kind of head, a loss that needs equal
            tokens where they differ, several GPUs in one process, FSDP, DeepSpeed.

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
        logit_loss: LogitLoss | Literal["auto"] | None = None,
        task_weight: float = 1.0,
        logit_weight: float = 1.0,
        **kwargs: Any,
    ) -> None:
        checks.check_trainer(type(self), logit_loss)
        position = step_inputs.position_of_teacher(super().__init__)
        if position is not None and (len(args) <= position or teacher_model is not None):
            kwargs["teacher_model"] = teacher_model
        super().__init__(*args, **kwargs)
        if position is None:
            self.teacher_model = teacher_model
        self.teacher_cache = teacher_cache
        self.logit_loss: Any = logit_loss
        self.task_weight, self.logit_weight = task_weight, logit_weight
        self.term_modules = term_modules(terms)
        self.terms = nn.ModuleList(self.term_modules).to(self.args.device)
        self.losses = callbacks.LossLog(Path(str(self.args.output_dir)))
        self._evaluation: report.EvaluationLog | None = None
        self.add_callback(callbacks.TermGradients(self.terms, self.losses))
        self.add_callback(callbacks.WarnUnclosedWindow(self.term_modules))
        self.distils = logit_loss is not None or len(self.terms) > 0
        self.wrapped = type(self).__name__ if position is not None else ""
        self.mismatch = ""  # why the teacher reads other token ids, if it does
        self.one_tokenizer = False  # whether both tokenizers are known and equal
        self.layers: list[tuple[Layer, Layer]] = []
        checks.check_needs(self, teacher_tokenizer)
        ranks.join(self.terms)
        self._initial_terms = checkpoints.terms_state(self.terms)

    def set_mismatch(self, mismatch: str) -> None:
        """Note why the teacher reads other token ids; InputError for losses that compare tokens."""
        self.mismatch = mismatch
        student = self.accelerator.unwrap_model(self.model)
        terms = [module.term for module in self.term_modules]
        token_logits = self.logit_loss is not None and lm_head(student) is not None
        cross_tokenizer.refuse_token_losses(mismatch, terms, token_logits, self.wrapped)

    # ---- the loss of a step ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The distillation loss in training, the trainer's own loss in evaluation."""
        inputs, teacher_batch, rows = step_inputs.split_inputs(self, inputs)
        text = step_inputs.as_text(inputs)
        checks.check_lengths(self, text)
        if not model.training:
            arguments = model, inputs, return_outputs, num_items_in_batch
            return step.evaluation_loss(self, super().compute_loss, *arguments)
        item_share, count = step_inputs.item_share(self, inputs, text, num_items_in_batch)
        at, batch = self.state.global_step, {**teacher_batch, **text}
        observed = self.teacher_model if self.distils else None
        layers = [layer for layer, _ in self.layers] or [-1]
        with record_outputs(observed, layers, grad=False, role="teacher") as teacher_calls:
            task, outputs, features = step.inherited_loss(
                self, super().compute_loss, model, inputs, return_outputs, count
            )
        loss = self.task_weight * task * item_share
        share = 1 / self.current_gradient_accumulation_steps
        self.losses.add("task", task * item_share / share, share, self.task_weight)
        # Now, since other losses would refuse the outputs of a diverged student.
        self.losses.check_finite(at, batch)
        if self.distils:
            reads = teacher_batch if self.mismatch or teacher_batch else text
            teacher = step.outputs_of_teacher(self, reads, rows, teacher_calls)
            with self.losses.blame_teacher_if_nonfinite(teacher, at, batch):
                if self.logit_loss is not None:
                    logit = step.logit_term(self, outputs, inputs, teacher)
                    loss = loss + self.logit_weight * logit * item_share
                    value = logit * item_share / share
                    self.losses.add("logit", value, share, self.logit_weight)
                if len(self.terms):
                    loss = step.add_feature_terms(self, loss, features, text, teacher)
                self.losses.check_finite(at, batch)
        return (loss, outputs) if return_outputs else loss

    def term_weights(self) -> dict[str, float]:
        """Each term's current factor, for run records: `{"weight/CKALoss[-1--1]": 1.0}`."""
        return {f"weight/{term.name}": term.weight for term in self.term_modules}

    # ---- evaluation ----

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Any,
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
        **kwargs: Any,
    ) -> Any:
        """The trainer's own, with features of both models for the metrics of the terms."""
        arguments = prediction_loss_only, ignore_keys
        if self.wrapped:
            return super().prediction_step(model, inputs, *arguments, **kwargs)
        inputs, teacher_batch, _ = step_inputs.split_inputs(self, self._prepare_inputs(inputs))
        reads = teacher_batch or ({} if self.mismatch else inputs)
        generates = getattr(self.args, "predict_with_generate", False)
        if self._evaluation is None or not reads or generates:
            return super().prediction_step(model, inputs, *arguments, **kwargs)
        student = self.accelerator.unwrap_model(model)
        ignored = report.outputs_to_ignore(student, ignore_keys)
        with self._evaluation.observe(student, inputs, reads):
            return super().prediction_step(model, inputs, prediction_loss_only, ignored, **kwargs)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own, with metrics of the terms where the teacher is run live."""
        if not len(self.terms) or self.teacher_model is None or self.wrapped:
            return super().evaluation_loop(*args, **kwargs)
        log = report.EvaluationLog(self.teacher_model, self.term_modules, self.layers)
        self._evaluation = log
        try:
            with report.in_evaluation(self.terms):
                output = super().evaluation_loop(*args, **kwargs)
                metrics = log.metrics(self.args.device)
        finally:
            self._evaluation = None
        prefix = kwargs.get("metric_key_prefix", "eval")
        named = {f"{prefix}_{name}": value for name, value in metrics.items()}
        return output._replace(metrics={**(output.metrics or {}), **named})

    # ---- logs, optimiser, checkpoints ----

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """The trainer's own; the terms start as they were given, or from a complete checkpoint.

        Args:
            resume_from_checkpoint: a folder, or True for the last complete checkpoint.
            *args: of `Trainer.train`.
            **kwargs: of `Trainer.train`.

        Raises:
            InputError: an incomplete checkpoint, or one of other terms.
        """
        warm_up = any(module.term.weight_warmup_batches for module in self.term_modules)
        needs_terms = warm_up or bool([*self.terms.parameters(), *self.terms.buffers()])
        output_dir = str(self.args.output_dir)
        resume = checkpoints.resumable(resume_from_checkpoint, output_dir, needs_terms)
        checkpoints.restore_terms(self.terms, self._initial_terms)
        self.losses.sums.clear()
        self.losses.reached.clear()
        return super().train(resume, *args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean of each unweighted loss since the last log, and its weight."""
        if "loss" in logs:
            logs.update(self.losses.pop_means(self.args.device))
        super().log(logs, start_time)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The trainer's own, which must be finite; mixed precision skips such steps itself."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        scaled = getattr(self.accelerator, "scaler", None) is not None
        if not scaled and not checkpoints.check_gradients(norm, self.terms):
            raise self.losses.nonfinite_gradient(self.state.global_step)
        return norm

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        columns: Any = self._signature_columns
        names = sorted(step_inputs.teacher_names(self))
        prefixed = [f"{TEACHER_PREFIX}{name}" for name in (*names, *_CACHED)]
        wanted = ("row", *names, *prefixed)
        columns += [name for name in wanted if name not in columns]

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
            checkpoints.save_terms(self.terms, Path(output_dir))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:  # first: the optimizer's error would not name other terms
            checkpoints.load_terms(self.terms, Path(checkpoint))
        super()._load_optimizer_and_scheduler(checkpoint)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The trainer's own, with teacher, losses, weights, scores and what to cite."""
        super().create_model_card(*args, **kwargs)
        if self.is_world_process_zero():
            report.append_card(self, Path(str(self.args.output_dir)))


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
