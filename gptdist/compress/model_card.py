"""README.md of an exported folder: what the model is, from the checkpoint's own record."""

from collections.abc import Mapping
from typing import Any

from gptdist.checkpoint.manifest import Manifest
from gptdist.compress.generations import Findings
from gptdist.config.exportable import FAMILIES
from gptdist.config.model import ModelConfig

_CARD = """---
library_name: transformers
pipeline_tag: text-generation
---
# {run}

A {family} language model of {parameters:,} parameters, pretrained with gptdist and exported after step {step:,}.

| | |
| --- | --- |
{rows}
{measured}
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
inputs = tokenizer("def main():", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
```

`DATA_CARD.md` says what it was trained on; `gptdist/` holds the tokens and figures of what was measured. `SHA256SUMS`
has the hash of every file, and `export.json` the figures of the comparison with the trained model.
This is a base model: it continues text. It has not been adjusted to follow instructions or to refuse any.
"""


_MEASURED = """
## Measured on held-out text
| source | loss (nats/token) | bits/byte | perplexity | tokens |
| --- | --- | --- | --- | --- |
{rows}

"""

_FOUND = """
## Found in what it writes
In {generations:,} texts that it wrote by itself, {tokens:,} tokens:

| kind | found | in 1,000 tokens |
| --- | --- | --- |
{rows}

Detectors miss some and find what is none; names and addresses of persons are not looked for.

"""


def model_card(manifest: Manifest, config: ModelConfig, record: Mapping[str, Any]) -> str:
    """Return the card.

    Args:
        manifest: of the checkpoint.
        config: of the model.
        record: what ``export.json`` will say, and under ``baseline`` and ``findings`` what was measured, or none.
    """
    parity = record["parity"]
    rows = {
        "layers, hidden size": f"{config.num_layers}, {config.hidden_size}",
        "query heads, key-value heads": f"{config.num_attention_heads}, {config.query_groups}",
        "positions (longest text, tokens)": f"{config.seq_length:,}",
        "vocabulary": f"{config.vocab_size:,}",
        "weights": record["dtype"],
        "tokens trained on": f"{manifest.progress.consumed_tokens:,}{_beginning(manifest)}",
        **_losses(manifest),
        "data": ", ".join(_sources(manifest.config)) or "not known",
        "tokenizer fingerprint": f"`{record['tokenizer_fingerprint']}`",
        "largest difference to the trained model's logits": _difference(parity),
    }
    family = f"{FAMILIES[record['huggingface_class']]}-style"
    return _CARD.format(
        run=record["run"],
        family=family,
        parameters=record["parameters"],
        step=record["step"],
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        measured=_measured(record["baseline"]) + _found(record["findings"]),
    )


def _difference(parity: Mapping[str, Any] | None) -> str:
    if parity is None:
        return "was not measured"
    return (
        f"{parity['max_abs_difference']:.2e} (largest logit {parity['max_abs_logit']:.2f}, "
        f"{parity['positions']:,} positions)"
    )


def _measured(baseline: Mapping[str, Any] | None) -> str:
    """The table of what the exported model scores."""
    if baseline is None:
        return ""
    rows = [
        f"| {one['name']} | {one['loss']:.4f} | {one['bits_per_byte']:.4f} | {one['perplexity']:,.2f} | "
        f"{one['tokens']:,} |"
        for one in baseline["sources"]
    ]
    tokens = sum(one["tokens"] for one in baseline["sources"] if one["weight"])
    rows.append(
        f"| mixture | {baseline['loss']:.4f} | {baseline['bits_per_byte']:.4f} | {baseline['perplexity']:,.2f} | "
        f"{tokens:,} |"
    )
    return _MEASURED.format(rows="\n".join(rows))


def _found(findings: Findings | None) -> str:
    """The table of what detectors found in texts that the model wrote."""
    if findings is None:
        return ""
    rows = [
        f"| {kind} | {count:,} | {findings.per_thousand_tokens(kind):.2f} |"
        for kind, count in sorted(findings.counts.items())
    ]
    return _FOUND.format(
        generations=findings.generations, tokens=findings.tokens, rows="\n".join(row.replace("_", " ") for row in rows)
    )


def _beginning(manifest: Manifest) -> str:
    """Which weights the training began with, if not random ones."""
    if manifest.origin is not None and manifest.origin.kind == "pruned":
        return f", then pruned out of {manifest.origin.sources[0].path}"
    if manifest.origin is not None and manifest.origin.kind != "average":
        return f" since the import of {manifest.origin.sources[0].path}"
    source = manifest.progress.initial_weights
    return "" if source is None else f", beginning with {source.path}"


def _losses(manifest: Manifest) -> dict[str, str]:
    """The losses that the checkpoint knows."""
    known = {"training loss": manifest.progress.loss, "validation loss": manifest.progress.validation_loss}
    return {name: f"{loss:.4f} nats a token" for name, loss in known.items() if loss is not None}


def _sources(config: Mapping[str, Any]) -> list[str]:
    """Names of the blended datasets with their weights."""
    sources = config["data"]["sources"]
    weights = [1.0 if source.get("weight") is None else source["weight"] for source in sources]
    names = [str(source["path"]).rstrip("/").rpartition("/")[2] for source in sources]
    return [f"{name} (weight {weight:g})" for name, weight in zip(names, weights, strict=True)]
