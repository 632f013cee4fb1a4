"""TRL's fine-tuning on answers and its two on-policy distillations, with feature terms."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DistillationConfig, DistillationTrainer, SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from geodistill import FeatureDistillation, FeatureTerm, ProcrustesLoss

WORDS = ["<pad>", "<end>", "user", "assistant", *"abcdefgh"]
TEMPLATE = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
CHAT = {"messages": [{"role": "user", "content": "a b"}, {"role": "assistant", "content": "c d e"}]}
PAIR = {"prompt": "a b", "completion": " c d e"}
SETTINGS: dict[type, tuple[type, dict[str, Any], dict[str, Any]]] = {
    SFTTrainer: (SFTConfig, PAIR, {"max_length": 24}),
    GKDTrainer: (GKDConfig, CHAT, {"max_length": 24, "lmbda": 0.5, "max_new_tokens": 6}),
    DistillationTrainer: (DistillationConfig, {"prompt": "a b"}, {"max_completion_length": 6}),
}


def llama(width: int) -> LlamaForCausalLM:  # in place of `AutoModelForCausalLM.from_pretrained`
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS), hidden_size=width,
        intermediate_size=2 * width, num_hidden_layers=2, num_attention_heads=2,
        initializer_range=0.1))  # fmt: skip


def main(base: Any = SFTTrainer) -> list[float]:
    """The geometry losses of a training with one of TRL's three trainers."""

    class Geometry(FeatureDistillation, base):
        """TRL's loss plus the weighted terms, over the tokens of the answers."""

    torch.manual_seed(0)
    model = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<pad>"))
    model.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model, pad_token="<pad>",
        eos_token="<end>", chat_template=TEMPLATE)  # fmt: skip
    config, row, lengths = SETTINGS[base]
    term = FeatureTerm(-1, -1, ProcrustesLoss())
    with tempfile.TemporaryDirectory() as folder:
        trainer = Geometry(
            llama(16),
            args=config(folder, max_steps=12, learning_rate=0.01, per_device_train_batch_size=8,
                logging_steps=1, report_to="none", bf16=False, disable_tqdm=True,
                save_strategy="no", use_cpu=True, **lengths),
            train_dataset=Dataset.from_list([row] * 16), processing_class=tokenizer,
            teacher_model=llama(32), terms=[term],
        )  # fmt: skip
        trainer.train()
    return [row[f"loss/{term.name}"] for row in trainer.state.log_history if "loss" in row]


if __name__ == "__main__":
    print(*(main(base) for base in SETTINGS), sep="\n")
