"""The dedup steps that a config asks for."""

from data_prep.steps.exact import Exact, ExactRecords
from data_prep.steps.lines import LineCuts, LineRanges, LineRecords
from data_prep.steps.near import NearClusters, NearEdges, NearSignatures
from data_prep.work import Step
from gptdist.config.prep import PrepConfig


def dedup_steps(config: PrepConfig) -> list[Step]:
    """Return the steps in the order to run; none where everything is off."""
    steps: list[Step] = []
    if config.dedup.exact:
        steps += [ExactRecords(), Exact()]
    if config.dedup.lines is not None:
        steps += [LineRecords(), LineRanges(), LineCuts()]
    if config.dedup.near is not None:
        steps += [NearSignatures(), NearEdges(), NearClusters()]
    return steps
