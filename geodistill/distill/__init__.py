"""Feature distillation for any `transformers` trainer: terms, teacher cache, students."""

from geodistill.distill.build_teacher_cache import build_cache
from geodistill.distill.collate import batches_by_length, count_valid_tokens, pad, teacher_inputs
from geodistill.distill.feature_term import FeatureTerm
from geodistill.distill.sentence_embeddings import SentenceEmbeddingLoss
from geodistill.distill.students import bert_student, opt_student, pca_init_embeddings, take_layers
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.distill.trainer import FeatureDistillation, FeatureDistillationTrainer

__all__ = [
    "FeatureDistillation",
    "FeatureDistillationTrainer",
    "FeatureTerm",
    "SentenceEmbeddingLoss",
    "TeacherCache",
    "batches_by_length",
    "bert_student",
    "build_cache",
    "count_valid_tokens",
    "opt_student",
    "pad",
    "pca_init_embeddings",
    "take_layers",
    "teacher_inputs",
]
