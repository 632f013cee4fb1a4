"""Feature distillation for any `transformers` trainer: terms, teacher cache, students."""

from geodistill.distill.cache import TeacherCache, build_cache
from geodistill.distill.students import bert_student, opt_student
from geodistill.distill.terms import FeatureTerm
from geodistill.distill.trainer import FeatureDistillation, FeatureDistillationTrainer

__all__ = [
    "FeatureDistillation",
    "FeatureDistillationTrainer",
    "FeatureTerm",
    "TeacherCache",
    "bert_student",
    "build_cache",
    "opt_student",
]
