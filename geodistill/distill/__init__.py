"""Feature distillation for any `transformers` trainer: terms, teacher cache, students."""

from geodistill.distill.build_cache import build_cache
from geodistill.distill.collate import in_batches, kept_counts, pad, teachers_own
from geodistill.distill.feature_term import FeatureTerm
from geodistill.distill.students import bert_student, opt_student, principal_start, truncate
from geodistill.distill.teacher_cache import TeacherCache
from geodistill.distill.trainer import FeatureDistillation, FeatureDistillationTrainer
from geodistill.layers.compare_layers import LayerMap, compare_layers

__all__ = [
    "FeatureDistillation",
    "FeatureDistillationTrainer",
    "FeatureTerm",
    "LayerMap",
    "TeacherCache",
    "bert_student",
    "build_cache",
    "compare_layers",
    "in_batches",
    "kept_counts",
    "opt_student",
    "pad",
    "principal_start",
    "teachers_own",
    "truncate",
]
