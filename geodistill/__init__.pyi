from geodistill.distill import FeatureDistillation as FeatureDistillation
from geodistill.distill import FeatureDistillationTrainer as FeatureDistillationTrainer
from geodistill.distill import FeatureTerm as FeatureTerm
from geodistill.distill import TeacherCache as TeacherCache
from geodistill.errors import AssetError as AssetError
from geodistill.errors import InputError as InputError
from geodistill.geometry import cka as cka
from geodistill.geometry import feature_gram_distance as feature_gram_distance
from geodistill.geometry import geometry_kept as geometry_kept
from geodistill.geometry import nuclear_norm as nuclear_norm
from geodistill.geometry import participation_ratio as participation_ratio
from geodistill.geometry import procrustes_distance as procrustes_distance
from geodistill.geometry import procrustes_parts as procrustes_parts
from geodistill.geometry import projection_distance as projection_distance
from geodistill.losses import CKALoss as CKALoss
from geodistill.losses import FeatureGramLoss as FeatureGramLoss
from geodistill.losses import IsotropyLoss as IsotropyLoss
from geodistill.losses import KLDivergenceLoss as KLDivergenceLoss
from geodistill.losses import PCATargetLoss as PCATargetLoss
from geodistill.losses import ProcrustesLoss as ProcrustesLoss
from geodistill.losses import ProjectionLoss as ProjectionLoss
from geodistill.losses import ShuffledRows as ShuffledRows
from geodistill.losses import SpectrumLoss as SpectrumLoss

__version__: str
