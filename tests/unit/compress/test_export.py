"""Whole exports: what is in the folder, what loads it, and what is refused."""

import hashlib
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from gptdist.compress import export_folder
from gptdist.compress.export import ExportOptions, ExportResult, export_model
from gptdist.compress.hf_model import load_huggingface_model
from gptdist.errors import ExportError
from gptdist.model import hf_names
from gptdist.tokenizer.byte import ByteTokenizer
from tests.unit.compress.small_models import Logits, TrainedModel, llama, trained

TEXT = "class Größe:\n    pass  # 🙂 two  spaces\n"


class Exporter:
    """Exports a model with the byte tokenizer and megatron-core's logits."""

    def __init__(self, megatron_logits: Logits, sample_tokens: np.ndarray) -> None:
        self.logits, self.sample = megatron_logits, sample_tokens

    def __call__(self, model: TrainedModel, output: Path, **options: object) -> ExportResult:
        return export_model(
            model,
            output,
            tokenizer=ByteTokenizer(),
            sample_tokens=self.sample,
            options=ExportOptions(**options),
            logits=partial(self.logits, model),
        )


@pytest.fixture
def export(megatron_logits: Logits, sample_tokens: np.ndarray) -> Exporter:
    return Exporter(megatron_logits, sample_tokens)


SCALING = {"factor": 4.0, "original_seq_length": 16, "low_frequency_factor": 1.0, "high_frequency_factor": 4.0}
MUP = {"init": "mup", "mup_base_hidden_size": 16, "mup_base_head_size": 2}
"""Multipliers of 1/2: their products with bf16 values are exact."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "make",
    [
        trained,
        partial(trained, **MUP),
        llama,
        partial(llama, tie_embeddings=False, kv_channels=12),
        partial(llama, rope_scaling=SCALING, **MUP),
        partial(llama, qk_norm=True),
        partial(llama, add_qkv_bias=True),
        partial(trained, position_embedding="rope", rotary_fraction=0.5),
        partial(llama, qk_norm=True, tie_embeddings=False, rope_scaling=SCALING, **MUP),
    ],
)
def test_folder_loads_and_is_the_trained_model(
    make: partial[TrainedModel], dtype: str, export: Exporter, tmp_path: Path, megatron_logits: Logits
) -> None:
    model = make()
    result = export(model, tmp_path / "out", dtype=dtype)

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    tokens = torch.randint(0, 256, (1, 24))
    with torch.inference_mode():
        torch.testing.assert_close(
            loaded(tokens).logits, megatron_logits(model, tokens, dtype), rtol=0, atol=result.parity.allowed_difference
        )
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == getattr(torch, dtype)
    assert result.parameters == sum(parameter.numel() for parameter in loaded.parameters())
    assert result.parity.max_abs_difference <= result.parity.allowed_difference
    assert loaded.generation_config.eos_token_id == 256


def test_folder_holds_what_its_record_says(export: Exporter, tmp_path: Path) -> None:
    result = export(trained(), tmp_path / "out")

    out = tmp_path / "out"
    found = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    weights = {"config.json", "generation_config.json", "model.safetensors"}
    texts = {"tokenizer.json", "tokenizer_config.json", "README.md", "DATA_CARD.md", "export.json", "SHA256SUMS"}
    assert found.keys() == weights | texts | {"gptdist/run_config.yaml", "gptdist/provenance.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "no temporary folder is left"
    record = json.loads(found["export.json"].read_text())
    assert (record["run"], record["step"], record["huggingface_class"]) == ("small", 30, "GPT2LMHeadModel")
    assert record["parity"]["max_abs_difference"] == result.parity.max_abs_difference
    assert {file["name"] for file in record["files"]} == found.keys() - {"export.json", "SHA256SUMS"}
    for file in record["files"]:
        assert hashlib.sha256(found[file["name"]].read_bytes()).hexdigest() == file["sha256"]
    card = found["README.md"].read_text()
    for fact in (
        "# small",
        "step 30",
        "5,760",
        "2.5000 nats",
        "python (weight 1)",
        f"{result.parameters:,} parameters",
    ):
        assert fact in card


def test_tokenizer_gives_the_same_ids(export: Exporter, tmp_path: Path) -> None:
    export(llama(), tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer(TEXT)["input_ids"] == ByteTokenizer().encode_batch([TEXT])[0].tolist()
    assert tokenizer.decode(tokenizer(TEXT)["input_ids"]) == TEXT
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id) == (256, 256, 256)
    assert tokenizer.model_max_length == 24


def test_several_weight_files_load(export: Exporter, tmp_path: Path) -> None:
    result = export(llama(), tmp_path / "out", max_shard_bytes=20_000)
    assert len([file for file in result.files if file.name.startswith("model-")]) > 2
    assert (tmp_path / "out" / "model.safetensors.index.json").is_file()


def test_different_logits_leave_nothing_behind(
    export: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "gptdist.compress.hf_model.to_huggingface",
        lambda config, name, tensor: [
            (hf_name, part * 1.01 if "wpe" in hf_name else part)
            for hf_name, part in hf_names.to_huggingface(config, name, tensor)
        ],
    )
    with pytest.raises(ExportError, match=r"out: logits differ .* by up to 0.\d+ \(allowed .* same likeliest token at"):
        export(trained(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_tokenizer_ids_leave_nothing_behind(
    export: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ByteTokenizer.huggingface_json

    def swapped(self: ByteTokenizer) -> str:
        tree = json.loads(original(self))
        vocabulary = tree["model"]["vocab"]
        vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
        return json.dumps(tree)

    monkeypatch.setattr(ByteTokenizer, "huggingface_json", swapped)
    with pytest.raises(ExportError, match=r"out: the exported tokenizer gives other ids from token \d+ of 'def"):
        export(trained(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_other_end_of_text_is_refused(export: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByteTokenizer, "eod_token", "a")
    with pytest.raises(ExportError, match="exported tokenizer's end-of-text is 97, not 256"):
        export(trained(), tmp_path / "out")


def test_earlier_export_is_replaced_only_when_asked(export: Exporter, tmp_path: Path) -> None:
    export(trained(), tmp_path / "out")
    with pytest.raises(ExportError, match="out: holds an earlier export; replace it with --overwrite"):
        export(llama(), tmp_path / "out")
    export(llama(), tmp_path / "out", overwrite=True)
    assert json.loads((tmp_path / "out/export.json").read_text())["huggingface_class"] == "LlamaForCausalLM"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_foreign_folder_is_never_replaced(export: Exporter, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ExportError, match="exists and is not an export of gptdist; choose another folder"):
        export(trained(), tmp_path, overwrite=True)
    (tmp_path / "export.json").write_text("[1]")
    with pytest.raises(ExportError, match="exists and is not an export of gptdist"):
        export(trained(), tmp_path, overwrite=True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_empty_folder_is_filled(export: Exporter, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export(trained(), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


def test_failed_replacement_keeps_the_earlier_export(
    export: Exporter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(trained(), tmp_path / "out")
    before = (tmp_path / "out/export.json").read_text()

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_folder, "swap_in", full_disk)
    with pytest.raises(ExportError, match="out: No space left on device; make room, or choose another folder"):
        export(llama(), tmp_path / "out", overwrite=True)
    assert (tmp_path / "out/export.json").read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_folder_that_cannot_be_made_is_named(export: Exporter, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match=r"file.*: Not a directory; make room, or choose another folder"):
        export(trained(), tmp_path / "file" / "out")


def test_leftover_of_a_killed_export_is_named(
    export: Exporter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".out.0a1b2c3d.partial").mkdir()
    export(trained(), tmp_path / "out")
    assert ".out.0a1b2c3d.partial: left by an export that was killed" in caplog.text


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (np.zeros((2, 25)), r"sample tokens: shape \(2, 25\); .* at most 24 tokens"),
        (np.zeros(3), r"sample tokens: shape \(3,\)"),
        (np.full((1, 2), 260), "ids from 260 to 260, but the model knows 0 to 259"),
    ],
)
def test_unreadable_sample_is_refused(
    sample: np.ndarray, message: str, megatron_logits: Logits, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match=message):
        Exporter(megatron_logits, sample)(trained(), tmp_path / "out")


def test_unknown_dtype_is_refused(export: Exporter, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="dtype: float16 is not known; use float32 or bfloat16"):
        export(trained(), tmp_path / "out", dtype="float16")


def test_model_without_counterpart_is_refused(export: Exporter, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"model.normalization: rmsnorm has no counterpart"):
        export(trained(normalization="rmsnorm"), tmp_path / "out")


def test_folder_with_a_missing_tensor_is_refused(export: Exporter, tmp_path: Path) -> None:
    export(trained(), tmp_path / "out")
    config = tmp_path / "out/config.json"
    config.write_text(config.read_text().replace('"n_layer": 2', '"n_layer": 3'))
    with pytest.raises(ExportError, match=r"loading reports missing_keys transformer.h.2"):
        load_huggingface_model(tmp_path / "out")


def test_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ExportError, match="transformers cannot load it"):
        load_huggingface_model(tmp_path)
