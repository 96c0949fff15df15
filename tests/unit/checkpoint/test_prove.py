"""A checkpoint notes which samples come next, and a resume that would read others is refused in one line."""

from pathlib import Path

import pytest

from gptdist.checkpoint.manifest import Manifest, Progress
from gptdist.checkpoint.proof import ResumeProof, order_digest
from gptdist.checkpoint.prove import check_same_samples, make_proof, source_positions
from gptdist.data.sources import TrainingData
from gptdist.errors import CheckpointError
from tests.support.datasets import make_run_config
from tests.support.made_ledger import empty_manifest

CONSUMED = 24


def _manifest(folder: Path, **changes) -> Manifest:
    config = make_run_config(folder, **changes)
    proof = make_proof(TrainingData(config), attempt=2, consumed_samples=CONSUMED, samples=8, steps=[])
    return empty_manifest(
        config,
        Progress(step=3, consumed_samples=CONSUMED, consumed_tokens=0, optimizer_step=3, proof=proof),
    )


def _check(manifest: Manifest, folder: Path, **changes) -> None:
    config = make_run_config(folder, **changes)
    check_same_samples(manifest, config.tree(), TrainingData(config), "step_3")


def test_it_notes_the_next_samples_and_reads_back(tmp_path: Path) -> None:
    proof = _manifest(tmp_path).progress.proof
    assert proof is not None
    assert ResumeProof.from_tree(proof.tree()) == proof
    assert [origin.sample for origin in proof.next_batch.origins] == [24, 25, 26, 27]
    assert sum(source.taken for source in proof.sources) == CONSUMED
    data = TrainingData(make_run_config(tmp_path))
    for origin in proof.next_batch.origins:
        address = data.order.address(origin.sample)
        assert data.order.names[address.source] == origin.source
        assert (address.epoch, address.first_token) == (origin.epoch, 32 * origin.window)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"batch": {"global_batch_size": 4}},
        {"optimizer": {"lr": 1.0}},
        {"data": {"stages": [{"from_samples": CONSUMED, "weights": {"code": 1.0}}]}},
    ],
    ids=["nothing", "batch", "optimizer", "a stage from here on"],
)
def test_what_leaves_the_order_as_it_was_may_change(tmp_path: Path, changes) -> None:
    _check(_manifest(tmp_path), tmp_path, **changes)


def test_another_order_is_refused_with_was_and_now(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    with pytest.raises(CheckpointError, match=r"step_3: seed: 1234 → 1, so the samples of now would be others"):
        _check(manifest, tmp_path, seed=1)
    sources = [dict(source) for source in manifest.config["data"]["sources"]]
    sources[0]["weight"] = 0.2
    wanted = (
        r"step_3: the first 24 samples held 5 samples of 'code', the next one window \d+ in epoch 0, and hold \d+ "
        r"samples of 'code', .* by the config of now \(data.sources.prose.weight: 0.7 → 0.2\)"
    )
    with pytest.raises(CheckpointError, match=wanted):
        _check(manifest, tmp_path, data={"sources": sources})
    with pytest.raises(CheckpointError, match=r"hold none of 'code' by the config of now"):
        _check(manifest, tmp_path, data={"sources": [sources[0] | {"weight": 0.7}]})
    with pytest.raises(CheckpointError, match=r"data.stages: \[\] → .*give new weights as a stage"):
        _check(manifest, tmp_path, data={"stages": [{"from_samples": 4, "weights": {"code": 1.0}}]})


def test_another_order_under_the_same_config_is_found(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    proof = manifest.progress.proof
    assert proof is not None
    moved = proof.next_batch.origins[2].model_copy(update={"window": 9999})
    origins = (*proof.next_batch.origins[:2], moved)
    batch = proof.next_batch.model_copy(update={"origins": origins})
    progress = manifest.progress.model_copy(update={"proof": proof.model_copy(update={"next_batch": batch})})
    with pytest.raises(
        CheckpointError, match=r"sample 26 was window 9999 of '\w+' in epoch 0 and is now window \d+ of"
    ):
        _check(manifest.model_copy(update={"progress": progress}), tmp_path)


def test_tokens_that_changed_under_their_manifest_are_found(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    for shard in (tmp_path / "data").glob("*/train-*.bin"):
        content = bytearray(shard.read_bytes())
        content[::2] = bytes((byte + 1) % 128 for byte in content[::2])
        shard.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokens of samples 24 to 31 had sha256 \w+ and have now \w+; a shard"):
        _check(manifest, tmp_path)


def test_the_digest_of_an_order_ignores_what_was_not_read(tmp_path: Path) -> None:
    order = TrainingData(make_run_config(tmp_path)).order
    positions = source_positions(order, CONSUMED)
    unread = positions[0].model_copy(update={"name": "new", "taken": 0})
    assert order_digest((*positions, unread)) == order_digest(positions[::-1])
    assert order_digest(source_positions(order, CONSUMED + 1)) != order_digest(positions)
