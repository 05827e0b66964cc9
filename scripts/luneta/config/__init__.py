"""The settings of a survey: every key is named, described, defaulted and bounded here."""

from luneta.config.candidates import Candidates
from luneta.config.catalog import Catalog
from luneta.config.cutouts import Annulus, AreaRatio, Cutouts, Extent, Extinction
from luneta.config.fields import ConfigError, Section, did_you_mean
from luneta.config.messages import load, read_file, refusal, sections_in, validate
from luneta.config.model import Config, Provenance, Simulation
from luneta.config.survey import (
    Astrometry,
    Detection,
    Mask,
    Remote,
    SourceColumns,
    StampColumns,
    Stamps,
    Tiles,
)
from luneta.config.tasks import Question, Task
from luneta.config.training import (
    ACTIVATIONS,
    BACKBONES,
    BUILT_IN_WEIGHTS,
    HUB,
    SMALLEST_SIDE,
    SMALLEST_SIDES,
    WEIGHTS_FILES,
    WITH_ACTIVATION,
    WITH_IMAGENET,
    WITH_TIMM,
    Augmentation,
    Clustering,
    Inference,
    Preprocessing,
    Pretraining,
    Training,
)

__all__ = [
    "ACTIVATIONS",
    "BACKBONES",
    "BUILT_IN_WEIGHTS",
    "HUB",
    "SMALLEST_SIDE",
    "SMALLEST_SIDES",
    "WEIGHTS_FILES",
    "WITH_ACTIVATION",
    "WITH_IMAGENET",
    "WITH_TIMM",
    "Annulus",
    "AreaRatio",
    "Astrometry",
    "Augmentation",
    "Candidates",
    "Catalog",
    "Clustering",
    "Config",
    "ConfigError",
    "Cutouts",
    "Detection",
    "Extent",
    "Extinction",
    "Inference",
    "Mask",
    "Preprocessing",
    "Pretraining",
    "Provenance",
    "Question",
    "Remote",
    "Section",
    "Simulation",
    "SourceColumns",
    "StampColumns",
    "Stamps",
    "Task",
    "Tiles",
    "Training",
    "did_you_mean",
    "load",
    "read_file",
    "refusal",
    "sections_in",
    "validate",
]
