"""Continuations of prompts by two models, generated once and kept in the results file."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.compress.generate import TextModel, open_text_model
from gptdist.compress.generations import sample_generations
from gptdist.compress.rate.store import Store
from gptdist.compress.sampling import SamplingOptions
from gptdist.errors import ConfigError
from gptdist.model.parameters import derived_seed

MOST_PROMPT_CHARACTERS = 20_000
_HASHED = ("*.safetensors", "config.json", "tokenizer.json")


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a file: one a line, or of a ``.jsonl`` file the key ``prompt`` of each line.

    Raises:
        ConfigError: every line that is none, all at once.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"--prompts: '{path}' cannot be read as UTF-8 ({error}); mend or change the path"]) from None
    prompts, bad = [], []
    for number, line in enumerate(lines, 1):
        text = _prompt_of(line) if path.suffix == ".jsonl" else line
        if not isinstance(text, str) or not text.strip():
            bad.append(f"{path}:{number}: holds no prompt; write a text, in .jsonl as {{'prompt': …}}")
        elif len(text) > MOST_PROMPT_CHARACTERS:
            bad.append(f"{path}:{number}: {len(text):,} characters, {MOST_PROMPT_CHARACTERS:,} at most; shorten it")
        else:
            prompts.append(text)
    if not lines:
        bad.append(f"--prompts: '{path}' is empty; write a prompt on each line")
    if bad:
        raise ConfigError(bad)
    return list(dict.fromkeys(prompts))


def _prompt_of(line: str) -> object:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("prompt") if isinstance(found, dict) else None


def model_id(path: Path) -> str:
    """Return what a model is known by, wherever it lies: a hash of its files, or of its checkpoint's manifest.

    Raises:
        CheckpointError: there is no model.
    """
    digest = hashlib.sha256()
    if (path / "config.json").is_file():
        files = sorted({file for pattern in _HASHED for file in path.glob(pattern)})
    else:
        files = [resolve_checkpoint(path) / "manifest.json"]
    for file in files:
        with file.open("rb") as opened:
            digest.update(f"{file.name}\0".encode() + hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()[:16]


def continuations(
    path: Path, model: str, prompts: Sequence[str], options: SamplingOptions, store: Store
) -> dict[str, str]:
    """Return what the model at ``path`` writes after each prompt, from the file where it is there.

    The same options give the same text, whichever prompts there are besides.
    """
    settings = json.dumps(asdict(options), sort_keys=True)
    known = store.texts(model, settings)
    missing = [prompt for prompt in prompts if prompt not in known]
    if missing:
        text_model = open_text_model(path)
        for prompt in missing:
            known[prompt] = _continue(text_model, prompt, replace(options, seed=seed_of(options.seed, model, prompt)))
            store.keep_text(prompt, model, settings, known[prompt])
    return {prompt: known[prompt] for prompt in prompts}


def seed_of(seed: int, model: str, prompt: str) -> int:
    """Return the seed of one text: models alike in size would often choose alike with the same draws."""
    return derived_seed(seed, "rate", model, prompt)


def _continue(text_model: TextModel, prompt: str, options: SamplingOptions) -> str:
    (generation,) = sample_generations(text_model, replace(options, num_samples=1), [prompt])
    return generation.text
