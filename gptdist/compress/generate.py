"""Continue a prompt with a checkpoint or an exported folder, through transformers' generate and its key-value cache."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.read import CheckpointReader
from gptdist.compress.bundle.sums import require_whole
from gptdist.compress.hf_files import HuggingFaceWeights
from gptdist.compress.hf_model import build_huggingface_model, load_huggingface_model, quiet_transformers
from gptdist.compress.hf_tokenizer import TOKENIZER_FILES, huggingface_tokenizer
from gptdist.compress.sampling import SamplingOptions
from gptdist.compress.trained_on import trained_tokenizer
from gptdist.config.model import ModelConfig
from gptdist.device.device import choose_device
from gptdist.errors import CheckpointError, ConfigError, ExportError

UNFINISHED_CHARACTER = "\ufffd"
"""What decoding gives for the first bytes of a character whose last bytes are in the next token."""

_DESCRIPTIONS = ("config.json", "generation_config.json")


@dataclass(frozen=True)
class TextModel:
    """A model with its tokenizer, both of transformers."""

    model: Any
    tokenizer: Any

    @property
    def seq_length(self) -> int:
        """Positions that the model knows."""
        return int(self.model.config.max_position_embeddings)


@dataclass(frozen=True)
class Prompt:
    """Token ids to continue, and how many tokens fit behind them."""

    ids: tuple[int, ...]
    room: int


def open_text_model(path: Path, chosen_tokenizer: Path | None = None, *, dtype: str = "auto") -> TextModel:
    """Open an exported folder, or the newest whole checkpoint of a run, on this machine's device.

    Args:
        path: the model.
        chosen_tokenizer: of a checkpoint, in place of the run's.
        dtype: as ``choose_device`` takes it; quantized weights stay as they are.

    Raises:
        BundleError: a file is not what the folder's ``SHA256SUMS`` says.
        CheckpointError: there is neither, or it is damaged.
        ExportError: the model has no counterpart, or the tokenizer is missing or another one.
    """
    if not path.exists():
        raise CheckpointError(f"{path}: does not exist; name a run, a checkpoint or a Hugging Face folder")
    text_model = _open_exported(path) if (path / "config.json").is_file() else _open_checkpoint(path, chosen_tokenizer)
    device = choose_device("auto", dtype, 0)
    if getattr(text_model.model, "hf_quantizer", None) is not None:
        text_model.model.to(device.torch_device)
    else:
        text_model.model.to(device=device.torch_device, dtype=device.dtype)
    return text_model


def read_prompt(text_model: TextModel, text: str) -> Prompt:
    """Return the prompt's tokens; an empty one starts a new document.

    Raises:
        ConfigError: it leaves no position free.
    """
    with quiet_transformers():  # it would warn of a long prompt; the error below says more
        ids = tuple(text_model.tokenizer(text)["input_ids"]) or (text_model.tokenizer.eos_token_id,)
    limit = text_model.seq_length
    if len(ids) >= limit:
        raise ConfigError(
            [f"--prompt: {len(ids)} tokens, but the model knows {limit} positions; shorten it to {limit - 1} or fewer"]
        )
    return Prompt(ids, limit - len(ids))


def continue_prompt(
    text_model: TextModel, prompt: Prompt, options: SamplingOptions, *, sample: int, write: Callable[[str], None]
) -> int:
    """Continue the prompt once, handing on text as it comes; return the number of new tokens.

    Stops at the end of the document, after ``max_new_tokens``, or where the model has no position left.

    Args:
        text_model: what continues.
        prompt: from ``read_prompt``.
        options: how tokens are chosen; checked.
        sample: number of this sample, added to the seed.
        write: takes each piece of text.
    """
    stream = _TextStream(text_model.tokenizer, prompt.ids, write)
    ids = torch.tensor([prompt.ids], device=text_model.model.device)
    choice: dict[str, Any] = {"do_sample": False}
    if not options.is_greedy:
        choice = {
            "do_sample": True,
            "temperature": options.temperature,
            "top_k": options.top_k,
            "top_p": options.top_p,
        }
    torch.manual_seed(options.seed + sample)
    with torch.inference_mode(), quiet_transformers():
        output = text_model.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=min(options.max_new_tokens, prompt.room),
            pad_token_id=text_model.tokenizer.eos_token_id,
            eos_token_id=text_model.tokenizer.eos_token_id,
            streamer=stream,
            **choice,
        )
    return int(output.shape[1]) - len(prompt.ids)


class _TextStream:
    """What transformers' generate calls with each token; writes the text that is complete."""

    def __init__(self, tokenizer: Any, prompt: tuple[int, ...], write: Callable[[str], None]) -> None:
        self._tokenizer = tokenizer
        self._prompt_length = len(prompt)
        self._ids: list[int] = []
        self._written = len(self._decode(prompt))
        self._write = write

    def put(self, tokens: torch.Tensor) -> None:
        """Take the next tokens; the first call brings the prompt."""
        self._ids += tokens.reshape(-1).tolist()
        if len(self._ids) > self._prompt_length:
            self._write_up_to(self._decode(self._ids).rstrip(UNFINISHED_CHARACTER))

    def end(self) -> None:
        """Write what is left, finished or not."""
        self._write_up_to(self._decode(self._ids))

    def _write_up_to(self, text: str) -> None:
        # prompt and continuation are decoded together: some tokenizers drop a space at the start of a text
        if len(text) > self._written:
            self._write(text[self._written :])
            self._written = len(text)

    def _decode(self, ids: Any) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


def _open_exported(folder: Path) -> TextModel:
    from transformers import AutoTokenizer

    weights = HuggingFaceWeights(folder).paths
    require_whole(folder, [*_DESCRIPTIONS, *TOKENIZER_FILES, *(path.name for path in weights)])
    model = load_huggingface_model(folder)
    try:
        with quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ExportError(f"{folder}: its tokenizer cannot be loaded; export the model again") from error
    if tokenizer.eos_token_id is None:
        raise ExportError(f"{folder}: its tokenizer names no end-of-text token; add eos_token to tokenizer_config.json")
    return TextModel(model, tokenizer)


def _open_checkpoint(path: Path, chosen_tokenizer: Path | None) -> TextModel:
    reader = CheckpointReader(resolve_checkpoint(path))
    config = ModelConfig.from_tree(reader.manifest.config["model"], origin="checkpoint")
    tokenizer = trained_tokenizer(reader.manifest, chosen_tokenizer)
    model = build_huggingface_model(config, reader, eod_id=tokenizer.eod_id)
    return TextModel(model, huggingface_tokenizer(tokenizer, config.seq_length))
