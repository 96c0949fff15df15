"""Which steps a run has, in order."""

from data_prep.steps.account import AccountStep
from data_prep.steps.dedup import dedup_steps
from data_prep.steps.documents import DocumentsStep
from data_prep.steps.shards import LayoutStep, ShardsStep
from data_prep.steps.tokenize import TokenizeStep
from data_prep.steps.tokenizer import TokenizerStep
from data_prep.work import Step
from gptdist.config.prep import PrepConfig


def all_steps(config: PrepConfig) -> list[Step]:
    """Return the steps of a run; each needs those before it done."""
    return [
        DocumentsStep(),
        *dedup_steps(config),
        TokenizerStep(),
        TokenizeStep(),
        LayoutStep(),
        ShardsStep(),
        AccountStep(),
    ]


def step_named(config: PrepConfig, name: str) -> Step:
    """Return the step called ``name``."""
    return next(step for step in all_steps(config) if step.name == name)
