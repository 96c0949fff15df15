"""GGUF and ONNX: read back by other programs' code, the same function, or refused by name."""

import json
from functools import partial
from pathlib import Path

import gguf
import numpy as np
import onnxruntime
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gptdist.cli.main import main
from gptdist.compress import gguf_export, onnx_export, other_targets
from gptdist.compress.bundle.sums import sums_problems
from gptdist.compress.gguf_export import GGUF_FILE, export_gguf, gguf_problems
from gptdist.compress.hf_model import build_huggingface_model
from gptdist.compress.onnx_export import ONNX_FILE, export_onnx
from gptdist.errors import ConfigError, ExportError
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.tokenizer import Tokenizer
from gptdist.tokenizer.training import train_bpe
from tests.support.datasets import make_documents
from tests.unit.compress.exported import saved_run
from tests.unit.compress.small_models import TrainedModel, llama, trained

VOCABULARY = 320
MODELS = {
    "gpt2": trained,
    "gpt2-untied": partial(trained, tie_embeddings=False, ffn_hidden_size=40),
    "llama-gqa-untied": partial(llama, tie_embeddings=False),
    "llama-wide-heads": partial(llama, kv_channels=12),
    "qwen2": partial(llama, add_qkv_bias=True),
    "qwen3": partial(llama, qk_norm=True),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(make_documents(50, seed=0), 300)


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_transformers_reads_the_same_function(
    make: partial[TrainedModel], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = make(vocab_size=VOCABULARY)
    for dtype in ("float32", "q8_0"):
        result = export_gguf(model, tmp_path / "out", tokenizer, dtype=dtype, overwrite=True)
        assert result.parity.max_abs_logit > 1.0
        assert result.parity.is_equal
        assert sums_problems(tmp_path / "out") == []
    read = gguf.GGUFReader(tmp_path / "out" / GGUF_FILE)
    kinds = {tensor.tensor_type for tensor in read.tensors}
    assert gguf.GGMLQuantizationType.Q8_0 in kinds
    assert gguf.GGMLQuantizationType.F32 in kinds, "vectors stay as they are"
    assert (gguf.GGMLQuantizationType.F16 in kinds) == (model.config.ffn_size % 32 != 0 or model.config.head_size == 12)


def test_a_llama_needs_nothing_but_its_file(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Config and tokenizer too are in it; logits are those of the folder in the Hugging Face layout."""
    model = llama(vocab_size=VOCABULARY, rope_base=5e5, norm_epsilon=1e-3)
    export_gguf(model, tmp_path / "out", tokenizer, dtype="float32", overwrite=False)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file=GGUF_FILE).eval()
    expected = build_huggingface_model(model.config, model, eod_id=tokenizer.eod_id)
    tokens = torch.randint(0, VOCABULARY, (2, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(loaded(tokens).logits, expected(tokens).logits, rtol=0, atol=2e-5)
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out", gguf_file=GGUF_FILE)
    text = "the rank saves its shard: 12 steps\n"
    assert theirs(text)["input_ids"] == tokenizer.encode_batch([text])[0].tolist()
    fields = gguf.GGUFReader(tmp_path / "out" / GGUF_FILE).fields
    found = {key: fields[f"llama.{key}"].contents() for key in ("context_length", "attention.key_length", "vocab_size")}
    assert found == {"context_length": 24, "attention.key_length": 8, "vocab_size": VOCABULARY}
    assert len(fields["tokenizer.ggml.tokens"].contents()) == VOCABULARY
    assert fields["tokenizer.ggml.eos_token_id"].contents() == tokenizer.eod_id


def test_a_wrong_layout_is_noticed(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_export, "_TRANSPOSED", ("attn.c_attn.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"))
    with pytest.raises(ExportError, match=r"model.gguf: logits differ from the trained model's by up to"):
        export_gguf(trained(vocab_size=VOCABULARY), tmp_path / "out", tokenizer, dtype="float32", overwrite=False)
    monkeypatch.setattr(gguf_export, "_TRANSPOSED", ())
    with pytest.raises(ExportError, match=r"model.gguf: transformers cannot load it \(.*\); nothing was written"):
        export_gguf(trained(vocab_size=VOCABULARY), tmp_path / "out", tokenizer, dtype="float32", overwrite=False)
    for name in ("_laid_out", "_laid_back"):
        monkeypatch.setattr(gguf_export, name, lambda config, name, tensor: tensor)
    with pytest.raises(ExportError, match=r"model.gguf: logits differ from the trained model's by up to"):
        export_gguf(llama(vocab_size=VOCABULARY), tmp_path / "out", tokenizer, dtype="float32", overwrite=False)
    assert not list(tmp_path.iterdir())


def test_what_gguf_cannot_say_is_refused_at_once(tokenizer: Tokenizer, tmp_path: Path) -> None:
    scaling = {"factor": 4.0, "original_seq_length": 16}
    for model, wanted in (
        (trained(activation="gelu"), ["model.activation gelu is gelu_tanh in a GPT-2 of llama.cpp"]),
        (llama(add_bias=True, rope_scaling=scaling), ["model.add_bias true has no", "model.rope_scaling is not read"]),
        (trained(position_embedding="rope"), ["GPTNeoXForCausalLM is not written, only GPT2LMHeadModel, Llama"]),
        (llama(moe={"num_experts": 4}), ["MixtralForCausalLM is not written"]),
    ):
        problems = gguf_problems(model.config, tokenizer)
        assert len(problems) == len(wanted)
        assert all(text in problem and "use --to hf" in problem for text, problem in zip(wanted, problems, strict=True))
    with pytest.raises(ConfigError, match="this byte tokenizer is not written, only byte-level BPE is"):
        export_gguf(trained(), tmp_path / "out", ByteTokenizer(), dtype="float32", overwrite=False)
    with pytest.raises(ConfigError, match=r"--to onnx: model.moe is not written"):
        export_onnx(llama(moe={"num_experts": 4}), tmp_path / "out", tokenizer, overwrite=False)


def test_another_tokenizer_is_noticed(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = type(tokenizer).huggingface_json

    def without_merges(self: Tokenizer) -> str:
        tree = json.loads(original(self))
        tree["model"]["merges"] = tree["model"]["merges"][:1]
        return json.dumps(tree)

    monkeypatch.setattr(type(tokenizer), "huggingface_json", without_merges)
    monkeypatch.setattr(other_targets, "TEXT", "the model loads the weight")
    with pytest.raises(ExportError, match="the written tokenizer gives other ids; nothing was written, report it"):
        export_gguf(llama(vocab_size=VOCABULARY), tmp_path / "out", tokenizer, dtype="float32", overwrite=False)


def test_onnx_takes_any_batch_and_length(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama(vocab_size=VOCABULARY, num_layers=1)
    result = export_onnx(model, tmp_path / "out", tokenizer, overwrite=False)
    assert result.parity.is_equal
    assert sums_problems(tmp_path / "out") == []
    session = onnxruntime.InferenceSession(tmp_path / "out" / ONNX_FILE)
    expected = build_huggingface_model(model.config, model, eod_id=0)
    for batch, length in ((1, 3), (5, 24)):
        tokens = torch.randint(0, VOCABULARY, (batch, length), generator=torch.Generator().manual_seed(2))
        with torch.inference_mode():
            wanted = expected(tokens).logits.numpy()
        np.testing.assert_allclose(session.run(None, {"input_ids": tokens.numpy()})[0], wanted, rtol=0, atol=5e-5)
    with torch.no_grad():
        expected.lm_head.weight[3] += 0.1
    with pytest.raises(ExportError, match="logits differ from the trained model's by up to"):
        onnx_export._compare(tmp_path / "out" / ONNX_FILE, expected, other_targets.random_tokens(model.config))


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_folder, _ = saved_run(tmp_path, {})
    out = str(tmp_path / "out")
    assert main(["export", str(run_folder), "--to", "gguf", "--output", out, "--dtype", "float16"]) == 2
    assert "this byte tokenizer is not written" in capsys.readouterr().err
    assert main(["export", str(run_folder), "--to", "onnx", "--output", out, "--dtype", "q8_0", "--baseline"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "gptdist export: error: --dtype: q8_0 is not written with --to onnx; use float32",
        "gptdist export: error: --baseline: belongs to --to hf, not onnx; leave it out",
    ]
    assert main(["export", str(run_folder), "--to", "hf", "--output", out, "--dtype", "float16"]) == 2
    assert "--dtype: float16 is not written with --to hf; use float32 or bfloat16" in capsys.readouterr().err
