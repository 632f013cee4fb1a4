"""An embedding model learns from a wider teacher with another tokenizer, live or from a cache."""

import tempfile
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, TrainingArguments

from geodistill import FeatureDistillationTrainer, FeatureTerm, ProcrustesLoss, distill
from geodistill.tasks.prompts import encode_texts

TEXTS = [f"{a}{b} {c}{a}" for a in "abcdefgh" for b in "abcd" for c in "efgh"]


def tokenizer(pieces: set[str], split: pre_tokenizers.PreTokenizer) -> PreTrainedTokenizerFast:
    """In place of `AutoTokenizer.from_pretrained(NAME)`."""
    numbers = {piece: i for i, piece in enumerate(["<pad>", *sorted(pieces)])}
    model = Tokenizer(models.WordLevel(numbers, "<pad>"))
    model.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>", unk_token="<pad>")


def bert(width: int, vocabulary: int) -> BertModel:  # in place of `AutoModel.from_pretrained`
    return BertModel(BertConfig(vocab_size=vocabulary, hidden_size=width, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=2 * width, initializer_range=0.2))  # fmt: skip


def main(cached: bool = False) -> list[float]:
    """The geometry losses: one row per text, the mean over its tokens in each model."""
    torch.manual_seed(0)
    words = tokenizer({w for t in TEXTS for w in t.split()}, pre_tokenizers.WhitespaceSplit())
    letters = tokenizer({*"abcdefgh"}, pre_tokenizers.Split("", "isolated"))
    teacher, student = bert(48, len(words)).eval(), bert(16, len(letters))
    examples, _ = encode_texts(TEXTS, letters, max_length=16, teacher_tokenizer=words)
    collate = partial(distill.pad, pad_id=letters.pad_token_id, teacher_pad_id=words.pad_token_id)
    term = FeatureTerm(-1, -1, ProcrustesLoss(), pooling="mean")
    with tempfile.TemporaryDirectory() as folder:
        if cached:  # the teacher runs once, for all later students
            inputs = [distill.teacher_inputs(example) for example in examples]
            batches = distill.batches_by_length(inputs, 32, words.pad_token_id)
            n_rows = distill.count_valid_tokens(inputs)
            cache = distill.build_cache(teacher, batches, n_rows, Path(folder, "c"), layers=(-1,))
        trainer = FeatureDistillationTrainer(
            student,
            TrainingArguments(folder, max_steps=30, per_device_train_batch_size=64,
                learning_rate=0.01, logging_steps=1, report_to="none", disable_tqdm=True,
                save_strategy="no", use_cpu=True),
            train_dataset=examples, data_collator=collate, processing_class=letters, terms=[term],
            teacher_model=None if cached else teacher, teacher_cache=cache if cached else None,
            teacher_tokenizer=words, task_weight=0.0,
        )  # fmt: skip
        trainer.train()
    return [row[f"loss/{term.name}"] for row in trainer.state.log_history if "loss" in row]


if __name__ == "__main__":
    print(main(), main(cached=True))
