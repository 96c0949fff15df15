"""Write a model as an ONNX graph of batches and lengths of any size, compared with onnxruntime.

The graph takes ``input_ids`` [batch, length] and returns ``logits`` [batch, length, vocabulary]; it has no cache of
keys and values. Source: torch's exporter (``torch.onnx.export`` with ``dynamo=True``).
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gptdist.compress.bundle.sums import file_sha256
from gptdist.compress.export_folder import finished_export
from gptdist.compress.hf_model import TrainedModel, build_huggingface_model
from gptdist.compress.hf_tokenizer import tokenizer_files
from gptdist.compress.other_targets import Compared, random_tokens
from gptdist.compress.parity import Parity, compare_logits, require_equal
from gptdist.compress.safetensors_export import WrittenFile, write_text
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.tokenizer.tokenizer import Tokenizer

ONNX_FILE = "model.onnx"


class _Logits(nn.Module):
    """The model without its cache and its other outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return logits [b, s, v]."""
        logits: Tensor = self.model(input_ids, use_cache=False).logits
        return logits


def export_onnx(trained: TrainedModel, output: Path, tokenizer: Tokenizer, *, overwrite: bool) -> Compared:
    """Write ``output``/model.onnx in fp32, with its tokenizer, and compare it on two batches of other sizes.

    Args:
        trained: the checkpoint.
        output: folder to write.
        tokenizer: the one it was trained with.
        overwrite: whether an earlier export is replaced.

    Raises:
        ConfigError: the model has experts, whose routing the exporter fixes as it was for the example.
        ExportError: no class computes the model's function, the folder cannot be written, or the graph is another.
    """
    config = ModelConfig.from_tree(trained.manifest.config["model"], origin="checkpoint")
    if config.moe is not None:
        raise ConfigError(["--to onnx: model.moe is not written: a graph has no routing by token; use --to hf"])
    model = build_huggingface_model(config, trained, eod_id=tokenizer.eod_id)
    tokens = random_tokens(config)
    facts = {
        "target": "onnx",
        "dtype": "float32",
        "step": trained.manifest.step,
        "run": trained.manifest.config["name"],
    }
    with finished_export(output, facts, overwrite=overwrite) as (folder, files):
        files.extend(_write(folder, model, tokens))
        for name, text in tokenizer_files(tokenizer, config.seq_length).items():
            files.append(write_text(folder / name, text))
        parity = _compare(folder / ONNX_FILE, model, tokens)
        facts["parity"] = parity.tree()
    return Compared(output, parity, sum(file.num_bytes for file in files))


def _write(folder: Path, model: Any, tokens: Tensor) -> list[WrittenFile]:
    sizes = {0: torch.export.Dim("batch", min=1), 1: torch.export.Dim("length", min=2, max=_positions(model))}
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing: what matters is compared below
            program = torch.onnx.export(
                _Logits(model).eval(),
                (tokens[:, : max(2, tokens.shape[1] - 1)],),
                input_names=["input_ids"],
                output_names=["logits"],
                dynamic_shapes={"input_ids": sizes},
                dynamo=True,
                verbose=False,
            )
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    assert program is not None, "the exporter gave nothing"
    program.save(folder / ONNX_FILE, external_data=True)
    return [
        WrittenFile(path.name, path.stat().st_size, file_sha256(path)) for path in sorted(folder.glob(f"{ONNX_FILE}*"))
    ]


def _positions(model: Any) -> int:
    return int(model.config.max_position_embeddings)


def _compare(path: Path, model: Any, tokens: Tensor) -> Parity:
    """Compare on the whole sample, and on one short row: sizes may not be those of the example."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = []
    for part in (tokens[:1, : max(2, tokens.shape[1] // 3)], tokens):
        with torch.inference_mode():
            expected = model(part).logits
        (logits,) = session.run(["logits"], {"input_ids": part.numpy()})
        found.append(compare_logits(expected, torch.from_numpy(logits)))
        require_equal(found[-1], str(path))
    return found[-1]
