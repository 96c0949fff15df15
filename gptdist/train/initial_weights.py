"""The first weights of a run, out of a checkpoint."""

import logging

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.fragments import OptimizerFragments
from gptdist.checkpoint.identity import RunIdentity
from gptdist.checkpoint.initial import check_begins
from gptdist.checkpoint.load import load_initial_weights
from gptdist.checkpoint.manifest import SourceRecord
from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.verify import source_record
from gptdist.config.run import RunConfig
from gptdist.mesh.groups import Mesh

logger = logging.getLogger(__name__)


class InitialWeights:
    """What ``training.init_from`` names; only a run without checkpoints asks."""

    def __init__(self, config: RunConfig, identity: RunIdentity) -> None:
        """Take the run that is about to begin."""
        self._path = config.training.init_from
        self._identity = identity
        self.source: SourceRecord | None = None
        """What was loaded; none: weights stay as the seed drew them."""

    def choose(self) -> str | None:
        """Return the step folder to load, if any, after saying what is otherwise with the same weights.

        Raises:
            CheckpointError: it is missing, damaged, or of another model or tokenizer.
        """
        if self._path is None:
            return None
        folder = resolve_checkpoint(self._path)
        for line in check_begins(CheckpointReader(folder).manifest, self._identity, folder):
            logger.warning("training.init_from: the same weights in another model: %s", line)
        return str(folder)

    def load(self, reader: CheckpointReader, fragments: OptimizerFragments, mesh: Mesh) -> None:
        """Put the weights in, moments at zero. Collective: every rank calls it.

        Raises:
            CheckpointError: a tensor is missing, left over, or of another shape.
        """
        load_initial_weights(reader, fragments, mesh)
        self.source = source_record(reader.folder, reader.manifest)
        if mesh.is_lead:
            logger.info("weights of %s (step %d); the run begins at step 0", reader.folder, reader.manifest.step)
