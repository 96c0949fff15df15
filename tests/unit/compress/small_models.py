"""Trained models without a training run: random weights under the names of a checkpoint."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from gptdist.checkpoint.manifest import Manifest, Progress, SavedLayout
from gptdist.compress.safetensors_export import FORMATS
from gptdist.config.model import ModelConfig
from gptdist.mesh.groups import Mesh, destroy_mesh
from gptdist.mesh.layout import Layout
from gptdist.model.gpt import LanguageModel, transformer_config
from gptdist.model.hf_names import logical_shapes
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.train.inference import single_process_mesh

SIZES = {"num_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "seq_length": 24, "vocab_size": 260}
LLAMA_SWITCHES = {
    "num_query_groups": 2,
    "position_embedding": "rope",
    "rope_base": 5e5,
    "normalization": "rmsnorm",
    "activation": "swiglu",
    "add_bias": False,
    "ffn_hidden_size": 40,
}


@dataclass
class TrainedModel:
    """Stands in for a checkpoint's reader."""

    config: ModelConfig
    weights: dict[str, torch.Tensor]

    @property
    def manifest(self) -> Manifest:
        data = {"tokenizer": "data/tokenizer", "sources": [{"path": "data/python", "weight": 1.0}]}
        return Manifest(
            format="gptdist-checkpoint",
            version=1,
            progress=Progress(step=30, consumed_samples=240, consumed_tokens=5760, optimizer_step=30, loss=2.5),
            config={"name": "small", "model": self.config.tree(), "data": data},
            tokenizer_fingerprint=ByteTokenizer.fingerprint,
            data_fingerprints={},
            layout=SavedLayout(world_size=1, zero_stage=0, **dataclasses.asdict(Layout(1, 1, 1, 1))),
            tensors=(),
            fragments=(),
            files=(),
        )

    @property
    def tensor_names(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def weight(self, name: str) -> torch.Tensor:
        return self.weights[name]


def trained(**switches: object) -> TrainedModel:
    """Every parameter random and none at a value that hides a mistake, norms and biases included."""
    config = ModelConfig(**(SIZES | switches))
    generator = torch.Generator().manual_seed(7)
    weights = {}
    for name, shape in logical_shapes(config).items():
        noise = torch.randn(shape, generator=generator) * 0.3
        weights[name] = noise + 1.0 if "layernorm.weight" in name else noise
    return TrainedModel(config, weights)


def llama(**switches: object) -> TrainedModel:
    return trained(**(LLAMA_SWITCHES | switches))


Logits = Callable[[TrainedModel, torch.Tensor, str], torch.Tensor]


@contextmanager
def megatron_model(model: TrainedModel, dtype: str = "float32") -> Iterator[tuple[LanguageModel, Mesh]]:
    """megatron-core's model with the weights rounded to ``dtype``, and the mesh it lives on."""
    mesh = single_process_mesh()
    try:
        network = LanguageModel(model.config, transformer_config(model.config, mesh, torch.float32), mesh).eval()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                weight = model.weights[name].to(FORMATS[dtype][1])
                parameter.zero_()
                parameter[: weight.shape[0]] = weight  # vocabulary padding stays zero
        yield network, mesh
    finally:
        destroy_mesh()
