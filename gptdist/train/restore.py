"""What a run goes on from: its newest whole checkpoint, or the weights that it begins with."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.identity import RunIdentity, changes, check_continues, check_none_lost
from gptdist.checkpoint.load import load_run
from gptdist.checkpoint.manifest import Manifest
from gptdist.checkpoint.prove import check_same_samples
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.remote_store import RemoteStore
from gptdist.checkpoint.seals import Protection
from gptdist.checkpoint.start_from import newest_anywhere
from gptdist.config.run import RunConfig
from gptdist.data.sources import TrainingData
from gptdist.errors import CheckpointError, GptDistError
from gptdist.mesh.groups import Mesh, broadcast_text, max_over_ranks
from gptdist.mesh.patience import while_lead_works
from gptdist.train.initial_weights import InitialWeights
from gptdist.train.run import TrainState

logger = logging.getLogger(__name__)


def restore(
    config: RunConfig, fragments: OptimizerFragments, identity: RunIdentity, data: TrainingData, mesh: Mesh
) -> TrainState:
    """Put the newest whole checkpoint in, if there is one, and return where the run stands.

    A run without one begins with the weights that ``training.init_from`` names. Collective: every rank calls it.

    Raises:
        CheckpointError: the checkpoint cannot be continued, on every rank.
    """
    manifest = load_agreed(partial(_choose, config, identity, data), fragments, mesh)
    if manifest is not None:
        return TrainState.of(manifest.progress)
    initial = InitialWeights(config, identity)
    begun = load_agreed(initial.choose, fragments, mesh, initial.load)
    return TrainState(initial_weights=initial.source, zeros={} if begun is None else dict(begun.progress.zeros))


def load_agreed(
    choose: Callable[[], str | None],
    fragments: OptimizerFragments,
    mesh: Mesh,
    load: Callable[[CheckpointReader, OptimizerFragments, Mesh], None] = load_run,
) -> Manifest | None:
    """Put the checkpoint in that ``choose`` names on rank 0, and return its manifest; none if it names none.

    Collective: every rank calls it.

    Args:
        choose: returns a step folder.
        fragments: where to.
        mesh: the ranks.
        load: what is taken of it; default: all.

    Raises:
        CheckpointError: ``choose`` or the loading failed, on every rank.
    """
    folder, problem = None, ""
    try:
        folder = while_lead_works(choose, mesh)
    except GptDistError as error:
        problem = str(error)
    problem = broadcast_text(problem) or ""
    if problem:
        raise CheckpointError(problem)
    chosen = broadcast_text(folder)
    if chosen is None:
        return None
    reader = CheckpointReader(Path(chosen))
    try:
        load(reader, fragments, mesh)
    except CheckpointError as error:
        problem = str(error)
    if max_over_ranks(len(problem)):
        raise CheckpointError(problem or f"{chosen}: another rank could not read it, see its message")
    progress = reader.manifest.progress
    if mesh.is_lead and load is load_run:
        logger.info("resumed %s (step %d, %d samples)", chosen, progress.step, progress.consumed_samples)
    return reader.manifest


def _choose(config: RunConfig, identity: RunIdentity, data: TrainingData) -> str | None:
    """Return the checkpoint to continue, after saying what was passed over and what has changed."""
    remote = config.checkpoints.remote
    store = None if remote is None else RemoteStore(remote.url, config.name)
    folder, passed_over = newest_anywhere(
        config.checkpoints_folder,
        store,
        partial(check_continues, identity=identity),
        Protection.of(config.checkpoints.protection).trusted_key,
    )
    for line in passed_over:
        logger.warning("checkpoint passed over: %s", line)
    if folder is None:
        check_none_lost(config.folder, config.checkpoints_folder)
        return None
    manifest = CheckpointReader(folder).manifest
    check_continues(manifest, identity, str(folder))
    check_same_samples(manifest, identity.config, data, str(folder))
    for line in changes(manifest.config, identity.config):
        logger.info("config changed since the checkpoint: %s", line)
    return str(folder)
