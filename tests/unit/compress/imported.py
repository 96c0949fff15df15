"""What tests of imported folders share."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from ruamel.yaml import YAML

from gptdist.checkpoint.read import CheckpointReader
from gptdist.checkpoint.seals import SUMS_NAME
from gptdist.compress.import_model import ImportOptions, import_huggingface
from gptdist.errors import ModelImportError
from tests.support.datasets import run_tree
from tests.unit.compress.small_models import TrainedModel


def assert_weights(reader: CheckpointReader, model: TrainedModel) -> None:
    assert reader.tensor_names == tuple(model.weights)
    assert all(torch.equal(reader.weight(name), tensor) for name, tensor in model.weights.items())


def written_config(folder: Path, section: dict[str, Any], **changes: Any) -> str:
    path = folder / "run.yaml"
    YAML(typ="safe", pure=True).dump(run_tree(folder, model=section, **changes), path)
    return str(path)


def transformers_folder(folder: Path, **changes: Any) -> tuple[Path, Any]:
    """A Llama that transformers made and wrote."""
    torch.manual_seed(3)
    config = transformers.LlamaConfig(
        vocab_size=61, hidden_size=24, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-6, **changes,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder, model


def model_of(reader: CheckpointReader):
    from gptdist.config.model import ModelConfig

    return ModelConfig.from_tree(reader.manifest.config["model"])


def import_and_compare(source: Path, output: Path, *, is_compared: bool = True) -> None:
    import_huggingface(source, output, ImportOptions(is_compared=is_compared))


def assert_refused(folder: Path, message: str, output: Path | None = None) -> None:
    output = output or folder.parent / "imported"
    with pytest.raises(ModelImportError, match=message):
        import_huggingface(folder, output, ImportOptions())
    assert not list(folder.parent.glob("*imported*")), "nothing is left behind"


def edit_json(path: Path, **changes: Any) -> None:
    tree = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in tree.items() if value != "gone"}))
    (path.parent / SUMS_NAME).unlink(missing_ok=True)  # another writer's folder has none
