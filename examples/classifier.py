"""A text classifier learns labels, its teacher's logits and geometry; a checkpoint and a card."""

import tempfile
from pathlib import Path

import torch
from datasets import Dataset
from transformers import BertConfig, BertForSequenceClassification, TrainingArguments

from geodistill import FeatureDistillationTrainer, FeatureTerm, ProcrustesLoss


def bert(width: int, layers: int) -> BertForSequenceClassification:
    """In place of `AutoModelForSequenceClassification.from_pretrained(NAME)`."""
    config = BertConfig(vocab_size=50, hidden_size=width, num_hidden_layers=layers,
                        num_attention_heads=2, intermediate_size=2 * width, num_labels=2,
                        initializer_range=0.2)  # fmt: skip
    return BertForSequenceClassification(config)


def main(folder: str = "", steps: int = 40) -> tuple[list[float], str]:
    """The geometry losses, half of them after an interruption; and the model card."""
    torch.manual_seed(0)
    teacher, student = bert(32, 4), bert(16, 2)
    rows = torch.randint(2, 50, (256, 8)).tolist()
    examples = [{"input_ids": ids, "labels": int(ids[0] > 25)} for ids in rows]
    term = FeatureTerm(4, 2, ProcrustesLoss(), weight_warmup_batches=4)
    with tempfile.TemporaryDirectory() as scratch:
        folder = folder or scratch

        def trainer(max_steps: int) -> FeatureDistillationTrainer:
            arguments = TrainingArguments(
                folder, max_steps=max_steps, per_device_train_batch_size=32, learning_rate=0.01,
                lr_scheduler_type="constant", logging_steps=1, save_steps=steps // 2,
                report_to="none", disable_tqdm=True, use_cpu=True,
            )  # fmt: skip
            return FeatureDistillationTrainer(
                student, arguments, train_dataset=Dataset.from_list(examples),
                teacher_model=teacher, terms=[term], logit_loss="auto",
            )  # fmt: skip

        trainer(steps // 2).train()  # as if killed here
        last = trainer(steps)
        last.train(resume_from_checkpoint=True)
        last.save_model(folder)
        last.create_model_card()  # push_to_hub() uploads it with the weights
        card = Path(folder, "README.md").read_text(encoding="utf-8")
    name = f"loss/{term.name}"
    return [row[name] for row in last.state.log_history if name in row], card


if __name__ == "__main__":
    losses, card = main()
    print(losses[::10], card)
