"""The proof that a run puts into its checkpoint."""

from gptdist.checkpoint.proof import ResumeProof
from gptdist.checkpoint.prove import make_proof
from gptdist.train.run import Run


def proof_now(run: Run) -> ResumeProof | None:
    """Return the proof of the checkpoint that ``run`` now saves; rank 0 writes the manifest, no other needs one."""
    run.state.saved_step = run.state.step
    if run.ledger is None:
        return None
    return make_proof(
        run.data,
        attempt=run.ledger.attempt,
        consumed_samples=run.state.consumed_samples,
        samples=run.step_samples,
        steps=run.state.recent,
    )
