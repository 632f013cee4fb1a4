"""A training of a few steps, by one process or as one of several under torchrun; see the test.

python two_processes.py CASE FOLDER [CHECKPOINT]
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import save_file
from support.tiny_models import answers, arguments, collate, sentences, tiny_bert, tiny_opt, weights
from transformers import PrinterCallback

from geodistill.distill import FeatureDistillationTrainer, FeatureTerm
from geodistill.losses import CKALoss, KLDivergenceLoss, ProcrustesLoss, ProjectionLoss

SENTENCES = sentences([6, 4, 5, 6, 3, 7, 6, 5] * 4, seed=1)
ANSWERS = answers([8, 7, 8, 6, 9, 8, 7, 10] * 4, [3, 1, 5, 2, 4, 2, 6, 7] * 4, seed=1)
BATCH, STEPS = 4, 4


def terms(case: str) -> list[FeatureTerm]:
    torch.manual_seed(100 + int(os.environ.get("RANK", 0)))  # ranks differ until they are joined
    warm = 2 if "balance" in case else 0
    return [
        FeatureTerm(-1, -1, ProcrustesLoss(), weight_warmup_batches=warm),
        FeatureTerm(1, 1, CKALoss(decay=0.9), weight=0.5),
        FeatureTerm(-1, 1, ProjectionLoss(32, 48), weight_warmup_batches=warm),
    ]


def main(case: str, folder: Path, checkpoint: str | None) -> None:
    world = int(os.environ.get("WORLD_SIZE", 1))
    make, data = (tiny_opt, ANSWERS) if case.startswith("opt") else (tiny_bert, SENTENCES)
    student, chosen = make(1), terms(case)
    if world == 1:  # the first process's, which the others take over
        chosen = terms(case)
    trainer = FeatureDistillationTrainer(
        model=student,
        args=arguments(
            folder / "output", max_steps=STEPS, per_device_train_batch_size=BATCH * 2 // world,
            save_strategy="steps", save_steps=2, learning_rate=0.05,
        ),
        train_dataset=data,
        eval_dataset=data[:16],
        data_collator=collate,
        teacher_model=make(2, width=48),
        terms=chosen,
        logit_loss=KLDivergenceLoss(),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        learned = {"projection": chosen[2].loss.weight.detach().clone()}
        save_file({**weights(student), **learned}, folder / "weights.safetensors")
        (folder / "log.json").write_text(json.dumps([*trainer.state.log_history, metrics]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else None)
