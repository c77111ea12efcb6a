"""The schema of each verb, by its name."""

from ldmctl.config.base import Config
from ldmctl.config.schemas.encode_dataset import EncodeDataset
from ldmctl.config.schemas.eval_lpips import EvalLpips
from ldmctl.config.schemas.eval_samples import EvalSamples
from ldmctl.config.schemas.fit_ae import FitAE
from ldmctl.config.schemas.fit_diffusion import FitDiffusion
from ldmctl.config.schemas.fit_token import FitToken
from ldmctl.config.schemas.sample import Sample
from ldmctl.config.schemas.spacing import FindSpacing

VERBS: dict[str, type[Config]] = {
    schema.verb: schema for schema in (FitAE, EncodeDataset, FitDiffusion, Sample, EvalLpips, EvalSamples, FindSpacing, FitToken)
}
