"""A trained model from a checkpoint in one process, without an optimizer."""

from datetime import timedelta

import torch
import torch.distributed as dist
from torch._C._distributed_c10d import HashStore

from gptdist.checkpoint.load import load_weights
from gptdist.checkpoint.read import CheckpointReader
from gptdist.config.model import ModelConfig
from gptdist.device.device import choose_device
from gptdist.mesh.groups import Mesh, make_mesh
from gptdist.mesh.layout import Layout
from gptdist.model.gpt import LanguageModel, transformer_config
from gptdist.model.parameters import local_parameters

_PATIENCE = timedelta(minutes=10)


def lone_process_group() -> None:
    """Make the default process group of this process alone, unless there is one."""
    if not dist.is_initialized():
        dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1, timeout=_PATIENCE)


def single_process_mesh() -> Mesh:
    """Return the mesh of this process alone; megatron-core asks for process groups even then."""
    lone_process_group()
    return make_mesh(Layout(1, 1, 1, 1), _PATIENCE)


def load_model(reader: CheckpointReader, mesh: Mesh, device: str = "cpu") -> LanguageModel:
    """Return the trained model in fp32, ready to evaluate.

    Call it as ``model(tokens, positions, None)`` for logits [b, s, vocab_size], or with ``labels=`` for the mean loss.

    Raises:
        CheckpointError: the checkpoint's tensors are not those of its config.
    """
    config = ModelConfig.from_tree(reader.manifest.config["model"], origin=str(reader.folder))
    where = choose_device(device, "fp32", local_rank=0).torch_device
    model = LanguageModel(config, transformer_config(config, mesh, torch.float32), mesh)
    load_weights(reader, list(local_parameters(model, config, tensor_parallel_size=1, tp_rank=0)))
    return model.to(where).eval()
