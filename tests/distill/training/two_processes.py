"""A training of a few steps, by one process or as one of several under torchrun; see the test.

python two_processes.py FOLDER [CHECKPOINT]
"""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
from safetensors.torch import save_file
from support.tiny_models import answers, distiller, tiny_opt, weights

from geodistill.distill import FeatureTerm
from geodistill.losses import CKALoss, KLDivergenceLoss, ProcrustesLoss, ProjectionLoss

ANSWERS = answers([8, 7, 8, 6, 9, 8, 7, 10] * 4, [3, 1, 5, 2, 4, 2, 6, 7] * 4, seed=1)
BATCH, STEPS = 4, 4


def terms() -> list[FeatureTerm]:
    torch.manual_seed(100 + int(os.environ.get("RANK", 0)))  # ranks differ until they are joined
    return [
        FeatureTerm(-1, -1, ProcrustesLoss(), weight_warmup_batches=2),
        FeatureTerm(1, 1, CKALoss(decay=0.9), weight=0.5),
        FeatureTerm(-1, 1, ProjectionLoss(32, 48), weight_warmup_batches=2),
    ]


def main(folder: Path, checkpoint: str | None) -> None:
    world = int(os.environ.get("WORLD_SIZE", 1))
    student, chosen = tiny_opt(1), terms()
    trainer = distiller(
        folder / "output", student, ANSWERS, eval_dataset=ANSWERS[:16],
        teacher_model=tiny_opt(2, width=48), terms=chosen, logit_loss=KLDivergenceLoss(),
        max_steps=STEPS, per_device_train_batch_size=BATCH * 2 // world, save_strategy="steps",
        save_steps=2, learning_rate=0.05,
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=checkpoint)
    metrics = trainer.evaluate()
    if trainer.is_world_process_zero():
        folder.mkdir(parents=True, exist_ok=True)
        learned = {"projection": chosen[2].loss.weight.detach().clone()}
        save_file({**weights(student), **learned}, folder / "weights.safetensors")
        (folder / "log.json").write_text(json.dumps([*trainer.state.log_history, metrics]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
