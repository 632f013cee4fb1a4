"""Feature distillation for any `transformers` trainer: terms, teacher cache, students."""

from geodistill.distill.batches import in_batches, kept_counts, pad, teachers_own
from geodistill.distill.cache import TeacherCache
from geodistill.distill.cache_building import build_cache
from geodistill.distill.inspect import LayerMap, compare_layers
from geodistill.distill.students import bert_student, opt_student, principal_start, truncate
from geodistill.distill.terms import FeatureTerm
from geodistill.distill.trainer import FeatureDistillation, FeatureDistillationTrainer

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
