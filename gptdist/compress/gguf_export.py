"""Write a model as a GGUF file, which llama.cpp and its kin run; compared through transformers, which reads GGUF too.

What llama.cpp computes otherwise, or transformers cannot read back, is refused by name: nothing is written unproved.

Letters: h hidden, n heads, d head size.
"""

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray
from torch import Tensor

from gptdist.compress.bundle.sums import file_sha256
from gptdist.compress.export_folder import finished_export
from gptdist.compress.hf_model import (
    TrainedModel,
    huggingface_weights,
    model_of_weights,
    quiet_transformers,
    require_all_loaded,
)
from gptdist.compress.other_targets import Compared, random_tokens, require_text_ids
from gptdist.compress.parity import Parity, compare_logits, require_equal
from gptdist.compress.safetensors_export import WrittenFile
from gptdist.config.exportable import GPT2_CLASS, LLAMA_CLASS, QWEN2_CLASS, QWEN3_CLASS, huggingface_class
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError, ExportError
from gptdist.model.hf_names import huggingface_shapes
from gptdist.tokenizer.tokenizer import Tokenizer

GGUF_FILE = "model.gguf"
FORMATS = {"float32": Kind.F32, "float16": Kind.F16, "q8_0": Kind.Q8_0}
"""Number formats of matrices; vectors and positions are always fp32."""

_ARCHITECTURES = {
    GPT2_CLASS: gguf.MODEL_ARCH.GPT2,
    LLAMA_CLASS: gguf.MODEL_ARCH.LLAMA,
    QWEN2_CLASS: gguf.MODEL_ARCH.QWEN2,
    QWEN3_CLASS: gguf.MODEL_ARCH.QWEN3,
}
_TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
_BLOCK = gguf.GGML_QUANT_SIZES[Kind.Q8_0][0]
"""Values that share a scale; a row that is no multiple is written in fp16."""


def gguf_problems(config: ModelConfig, tokenizer: Tokenizer) -> list[str]:
    """Return every reason why the model or its tokenizer cannot be written as GGUF."""
    name = huggingface_class(config)
    bad = []
    if name not in _ARCHITECTURES:
        bad.append(f"--to gguf: {name} is not written, only {', '.join(_ARCHITECTURES)}; use --to hf")
    if name == GPT2_CLASS and config.activation != "gelu_tanh":
        bad.append(f"--to gguf: model.activation {config.activation} is gelu_tanh in a GPT-2 of llama.cpp; use --to hf")
    if name == LLAMA_CLASS and config.add_bias:
        bad.append("--to gguf: model.add_bias true has no counterpart in a Llama of GGUF; use --to hf")
    if config.rope_scaling is not None:
        bad.append("--to gguf: model.rope_scaling is not read back by transformers, which proves it; use --to hf")
    if not _is_byte_level(json.loads(tokenizer.huggingface_json())):
        bad.append(f"--to gguf: this {tokenizer.kind} tokenizer is not written, only byte-level BPE is; use --to hf")
    return bad


def export_gguf(trained: TrainedModel, output: Path, tokenizer: Tokenizer, *, dtype: str, overwrite: bool) -> Compared:
    """Write ``output``/model.gguf, with one tensor in memory at a time, and compare what transformers reads of it.

    Args:
        trained: the checkpoint.
        output: folder to write.
        tokenizer: the one it was trained with.
        dtype: of matrices, one of ``FORMATS``.
        overwrite: whether an earlier export is replaced.

    Raises:
        ConfigError: the model or its tokenizer cannot be written.
        ExportError: the folder cannot be written, or another function was.
    """
    config = ModelConfig.from_tree(trained.manifest.config["model"], origin="checkpoint")
    if problems := gguf_problems(config, tokenizer):
        raise ConfigError(problems)
    tokens = random_tokens(config)
    facts = {"target": "gguf", "dtype": dtype, "step": trained.manifest.step, "run": trained.manifest.config["name"]}
    with finished_export(output, facts, overwrite=overwrite) as (folder, files):
        files.append(write_gguf(folder / GGUF_FILE, config, trained, tokenizer, FORMATS[dtype]))
        parity = _compare(folder, config, trained, tokenizer, (FORMATS[dtype], tokens))
        facts["parity"] = parity.tree()
    return Compared(output, parity, sum(file.num_bytes for file in files))


def _compare(
    folder: Path, config: ModelConfig, trained: TrainedModel, tokenizer: Tokenizer, given: tuple[Kind, Tensor]
) -> Parity:
    """Compare with the same model whose weights are rounded alike; one of the two in memory at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kind, tokens = given
    where = str(folder / GGUF_FILE)
    reference = model_of_weights(config, _rounded_weights(config, trained, kind), eod_id=tokenizer.eod_id)
    with torch.inference_mode():
        expected = reference(tokens).logits
    huggingface = reference.config
    del reference
    with quiet_transformers(), torch.inference_mode(), contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
        # what GGUF says of positions and widths of a GPT-2, transformers reads under other names
        try:
            loaded, report = AutoModelForCausalLM.from_pretrained(
                folder,
                gguf_file=GGUF_FILE,
                config=huggingface,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ExportError(f"{where}: transformers cannot load it ({error}); nothing was written") from error
        require_all_loaded(report, where)
        found = loaded.eval()(tokens).logits
        theirs = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF_FILE, local_files_only=True)
    parity = compare_logits(expected, found)
    require_equal(parity, where)
    require_text_ids(tokenizer, theirs, where)
    return parity


def write_gguf(path: Path, config: ModelConfig, trained: TrainedModel, tokenizer: Tokenizer, kind: Kind) -> WrittenFile:
    """Write the file, with one tensor in memory at a time."""
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[_ARCHITECTURES[huggingface_class(config)]])
    _describe(writer, config, str(trained.manifest.config["name"]), kind)
    _describe_tokenizer(writer, tokenizer, config.vocab_size)
    names = gguf.get_tensor_name_map(_ARCHITECTURES[huggingface_class(config)], config.num_layers)
    for name, shape in huggingface_shapes(config).items():
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, f"{name} has no name in GGUF"
        laid_out = tuple(_laid_out(config, name, torch.empty(shape, device="meta")).shape)
        own = _kind_of(target, laid_out, kind)
        stored = gguf.quant_shape_to_byte_shape(laid_out, own) if own == Kind.Q8_0 else laid_out
        dtype = {Kind.F32: np.float32, Kind.F16: np.float16, Kind.Q8_0: np.uint8}[own]
        nbytes = int(np.prod(stored)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(target, stored, np.dtype(dtype), nbytes, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, tensor in huggingface_weights(config, trained):
        target = str(names.get_name(name, try_suffixes=(".weight", ".bias")))
        values = _laid_out(config, name, tensor).contiguous().numpy()
        writer.write_tensor_data(_stored(values, _kind_of(target, values.shape, kind)))
        del values, tensor  # or they would be there while the next are read
    writer.close()
    return WrittenFile(path.name, path.stat().st_size, file_sha256(path))


def _describe(writer: Any, config: ModelConfig, name: str, kind: Kind) -> None:
    types = {Kind.F32: gguf.LlamaFileType.ALL_F32, Kind.F16: gguf.LlamaFileType.MOSTLY_F16}
    writer.add_name(name)
    writer.add_file_type(types.get(kind, gguf.LlamaFileType.MOSTLY_Q8_0))
    writer.add_context_length(config.seq_length)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_layers)
    writer.add_feed_forward_length(config.ffn_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.query_groups)
    writer.add_vocab_size(config.vocab_size)
    if config.position_embedding == "learned":
        writer.add_layer_norm_eps(config.norm_epsilon)
        return
    writer.add_layer_norm_rms_eps(config.norm_epsilon)
    writer.add_rope_freq_base(config.rope_base)
    writer.add_rope_dimension_count(config.head_size)
    writer.add_key_length(config.head_size)
    writer.add_value_length(config.head_size)


def _describe_tokenizer(writer: Any, tokenizer: Tokenizer, vocab_size: int) -> None:
    """Tokens, merges, and what ends a text; rows of the embedding without a token are called unused."""
    tree = json.loads(tokenizer.huggingface_json())
    tokens = [f"[UNUSED{index}]" for index in range(vocab_size)]
    kinds = [int(gguf.TokenType.UNUSED)] * vocab_size
    for text, index in tree["model"]["vocab"].items():
        tokens[index], kinds[index] = text, int(gguf.TokenType.NORMAL)
    for added in tree["added_tokens"]:
        tokens[added["id"]], kinds[added["id"]] = added["content"], int(gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = tree["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.eod_id)
    writer.add_eos_token_id(tokenizer.eod_id)
    writer.add_pad_token_id(tokenizer.eod_id)
    writer.add_add_bos_token(False)


def _is_byte_level(tree: dict[str, Any]) -> bool:
    """Whether it splits as GPT-2's does, and has merges."""
    splits = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    before = tree.get("pre_tokenizer") or {}
    return (
        tree["model"]["type"] == "BPE"
        and bool(tree["model"]["merges"])
        and tree.get("normalizer") is None
        and {key: before.get(key) for key in splits} == splits
    )


def _laid_out(config: ModelConfig, name: str, tensor: Tensor) -> Tensor:
    """A tensor as GGUF has it: of GPT-2 output by input; of Llama pairs that rotate together side by side.

    Shapes: queries [n x d, …], each head's halves [2, d / 2] become [d / 2, 2].
    """
    if name.endswith(_TRANSPOSED):
        return tensor.T
    if huggingface_class(config) == LLAMA_CLASS and ("q_proj" in name or "k_proj" in name):
        heads = tensor.unflatten(0, (-1, 2, config.head_size // 2))
        return heads.transpose(1, 2).flatten(0, 2)
    return tensor


def _laid_back(config: ModelConfig, name: str, tensor: Tensor) -> Tensor:
    """The inverse of ``_laid_out``."""
    if name.endswith(_TRANSPOSED):
        return tensor.T
    if huggingface_class(config) == LLAMA_CLASS and ("q_proj" in name or "k_proj" in name):
        heads = tensor.unflatten(0, (-1, config.head_size // 2, 2))
        return heads.transpose(1, 2).flatten(0, 2)
    return tensor


def _kind_of(target: str, shape: tuple[int, ...], kind: Kind) -> Kind:
    if len(shape) < 2 or target.startswith("position_embd"):
        return Kind.F32
    return Kind.F16 if kind == Kind.Q8_0 and shape[-1] % _BLOCK else kind


def _stored(values: NDArray[Any], kind: Kind) -> NDArray[Any]:
    found: NDArray[Any] = gguf.quantize(values.astype(np.float32, copy=False), kind)
    return found


def _rounded_weights(config: ModelConfig, trained: TrainedModel, kind: Kind) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor as transformers has it, with the values that the file holds."""
    names = gguf.get_tensor_name_map(_ARCHITECTURES[huggingface_class(config)], config.num_layers)
    for name, tensor in huggingface_weights(config, trained):
        values = _laid_out(config, name, tensor).contiguous().numpy()
        own = _kind_of(str(names.get_name(name, try_suffixes=(".weight", ".bias"))), values.shape, kind)
        rounded = torch.from_numpy(np.array(gguf.dequantize(_stored(values, own), own), dtype=np.float32))
        yield name, _laid_back(config, name, rounded).contiguous()
