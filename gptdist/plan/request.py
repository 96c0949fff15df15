"""What a user asks a plan for: a run config, or a model alone, whose missing sections are filled in and told."""

from pathlib import Path
from typing import Any

from gptdist.config.run import RunConfig
from gptdist.config.source import apply_overrides, read_tree
from gptdist.errors import ConfigError
from gptdist.plan.device import Device

SEQUENCES_PER_RANK = 8
STEPS = 1000


def read_request(
    path: Path, overrides: list[str], device: Device, *, num_nodes: int, tokens: float | None
) -> tuple[RunConfig, list[str]]:
    """Return the config to plan for, and a line for everything that was assumed.

    Args:
        path: of a run config, or of a file of configs/models.
        overrides: ``key=value`` on top of it.
        device: of the plan; a config that does not say how many ranks a node has gets as many as it has devices.
        num_nodes: of the plan.
        tokens: of the whole run, in place of training.train_steps.

    Raises:
        ConfigError: as ``read_config`` does, or there is no model in it.
    """
    tree = apply_overrides(read_tree(path), overrides)
    if "model" not in tree:
        raise ConfigError([f"{path}: model: missing; name a run config or a file of configs/models"])
    assumed: list[str] = []
    launch = _section(tree, "launch")
    if "ranks_per_node" not in launch:
        launch["ranks_per_node"] = device.devices_per_node
        assumed.append(f"launch.ranks_per_node={device.devices_per_node} (devices of a node)")
    if "data" not in tree:
        tree.setdefault("name", "plan")
        tree["data"] = {"tokenizer": "unset", "sources": [{"path": "unset"}]}
    batch, training = _section(tree, "batch"), _section(tree, "training")
    if "micro_batch_size" not in batch:
        batch["micro_batch_size"] = 1
        assumed.append("batch.micro_batch_size=1")
    if "global_batch_size" not in batch:
        batch["global_batch_size"] = SEQUENCES_PER_RANK * max(1, num_nodes) * launch["ranks_per_node"]
        assumed.append(f"batch.global_batch_size={batch['global_batch_size']}")
    if "train_steps" not in training:
        training["train_steps"] = STEPS
        assumed += [f"training.train_steps={STEPS}"] if tokens is None else []
    config = RunConfig.from_tree(tree, origin=str(path))
    if tokens is None:
        return config, assumed
    a_step = config.batch.global_batch_size * config.model.seq_length
    steps = max(1, -(-int(tokens) // max(1, a_step)))
    assumed.append(f"training.train_steps={steps} (for {tokens:,.0f} tokens)")
    return config.model_copy(update={"training": config.training.model_copy(update={"train_steps": steps})}), assumed


def _section(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a copy of the section in ``tree``, put in its place; one of another kind is refused with the config."""
    found = tree.get(name)
    if found is not None and not isinstance(found, dict):
        raise ConfigError([f"{name}: must be a mapping, got {found!r}; write 'key: value' lines below it"])
    tree[name] = dict(found or {})
    section: dict[str, Any] = tree[name]
    return section
