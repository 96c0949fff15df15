"""Another layout that a run can go on with, for a proof that its checkpoints do not depend on the one that saved."""

from collections.abc import Iterator

from gptdist.config.layouts import ZERO_STAGES
from gptdist.config.run import RunConfig
from gptdist.config.source import apply_overrides


def other_layout(config: RunConfig) -> list[str] | None:
    """Return overrides that lay ``config`` out in another way, as different as it goes; None where there is none.

    Where dropout draws masks by rank, the axis that they depend on stays: another one would be another run.
    """
    stages = [stage for stage in (2, 1, 0, 3) if stage != config.parallel.zero_stage]
    assert len(stages) < len(ZERO_STAGES), "a stage that is none"
    moves = [*_moves(config), []]
    for move in moves:
        for zero in [*([f"parallel.zero_stage={stage}"] for stage in stages), []]:
            overrides = [*move, *zero]
            if overrides and not RunConfig.from_tree(apply_overrides(config.tree(), overrides)).problems():
                return overrides
    return None


def _moves(config: RunConfig) -> Iterator[list[str]]:
    """Yield ways to split less, or a single rank more."""
    parallel, model, ranks = config.parallel, config.model, config.launch.ranks_per_node
    fewer = f"launch.ranks_per_node={ranks // 2}"
    # A budget of activations was counted for the layout as it is.
    budget = (
        ["memory.recompute=full", "memory.activation_bytes=null"] if config.memory.activation_bytes is not None else []
    )
    if parallel.tensor_parallel_size > 1 and not model.attention_dropout:
        size = parallel.tensor_parallel_size // 2
        still = size > 1 or not parallel.sequence_parallel
        if still or not model.hidden_dropout:
            whole = [] if still else ["parallel.sequence_parallel=false"]
            yield [f"parallel.tensor_parallel_size={size}", *whole, fewer, *budget]
    if parallel.pipeline_parallel_size > 1:
        yield [f"parallel.pipeline_parallel_size={parallel.pipeline_parallel_size // 2}", fewer, *budget]
    if parallel.context_parallel_size > 1 and not (model.attention_dropout or model.hidden_dropout):
        yield [f"parallel.context_parallel_size={parallel.context_parallel_size // 2}", fewer, *budget]
    if parallel.expert_parallel_size > 1:
        yield [f"parallel.expert_parallel_size={parallel.expert_parallel_size // 2}"]
    data = parallel.data_parallel_size(ranks)
    if data > 1 and data % 2 == 0:
        yield [fewer]
    if ranks == 1:
        yield ["launch.ranks_per_node=2"]
