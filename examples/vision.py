"""A ResNet learns from a ViT: layers by module path, one row per image."""

import tempfile

import torch
from datasets import Dataset
from transformers import (
    ResNetConfig,
    ResNetForImageClassification,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from geodistill import FeatureDistillationTrainer, FeatureTerm, ProcrustesLoss


def images(n: int) -> Dataset:
    """Noise that is brighter on one side, which is the label."""
    generator, labels = torch.Generator().manual_seed(0), torch.arange(n) % 2
    pixels = torch.randn(n, 3, 16, 16, generator=generator)
    pixels[labels == 1, :, :, 8:] += 1
    return Dataset.from_dict({"pixel_values": pixels.tolist(), "labels": labels.tolist()})


def main(steps: int = 30) -> list[float]:
    """The geometry losses."""
    torch.manual_seed(0)
    teacher = ViTForImageClassification(
        ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
                  image_size=16, patch_size=8, num_labels=2, initializer_range=0.2)
    )  # fmt: skip
    student = ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=2)
    )
    # 2 × 2 patches and a class token against maps of 2 × 2 or 4 × 4: the mean over positions.
    term = FeatureTerm("vit.layers.1", "encoder.stages.0", ProcrustesLoss(), pooling="mean")
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            folder, max_steps=steps, per_device_train_batch_size=64, learning_rate=0.02,
            logging_steps=1, report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True,
        )  # fmt: skip
        trainer = FeatureDistillationTrainer(
            student, arguments, train_dataset=images(256), teacher_model=teacher, terms=[term]
        )
        trainer.train()
    name = f"loss/{term.name}"
    return [row[name] for row in trainer.state.log_history if name in row]


if __name__ == "__main__":
    print(main()[::10])
