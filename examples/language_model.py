"""A language model with LoRA (PEFT) learns its teacher's logits and geometry of the answers."""

import tempfile

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainingArguments

from geodistill import FeatureDistillationTrainer, FeatureTerm, ProcrustesLoss


def llama(width: int, layers: int) -> LlamaForCausalLM:
    """In place of `AutoModelForCausalLM.from_pretrained(NAME)`."""
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=40, hidden_size=width, intermediate_size=2 * width,
                    num_hidden_layers=layers, num_attention_heads=2, initializer_range=0.1,
                    pad_token_id=0)
    )  # fmt: skip


def main(steps: int = 40) -> tuple[list[float], int, int]:
    """The geometry losses, and how many of the student's weights are trained, of how many."""
    torch.manual_seed(0)
    teacher, student = llama(48, 3), llama(32, 2)
    student = get_peft_model(
        student, LoraConfig(r=8, target_modules=["q_proj", "v_proj", "o_proj"])
    )
    prompts, answers = torch.randint(1, 40, (2, 128, 6))
    examples = [  # `geodistill.tasks.prompts.encode_pairs` makes them of texts
        {"input_ids": [*p, *a], "labels": [-100] * len(p) + a}
        for p, a in zip(prompts.tolist(), answers.tolist(), strict=True)
    ]
    term = FeatureTerm(-1, -1, ProcrustesLoss())
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=32, learning_rate=0.02,
            logging_steps=1, report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True,
        )  # fmt: skip
        trainer = FeatureDistillationTrainer(
            student, arguments, train_dataset=examples, teacher_model=teacher, terms=[term],
            logit_loss="auto",
        )  # fmt: skip
        trainer.train()
    name = f"loss/{term.name}"
    losses = [row[name] for row in trainer.state.log_history if name in row]
    return losses, *student.get_nb_trainable_parameters()


if __name__ == "__main__":
    print(main())
