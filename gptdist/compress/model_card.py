"""README.md of an exported folder: what the model is, from the checkpoint's own record."""

from collections.abc import Mapping
from typing import Any

from gptdist.checkpoint.manifest import Manifest
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

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
inputs = tokenizer("def main():", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=40)[0]))
```

`export.json` holds the files' SHA-256 and the figures of the comparison with the trained model.
This is a base model: it continues text. It has not been adjusted to follow instructions or to refuse any.
"""


def model_card(manifest: Manifest, config: ModelConfig, record: Mapping[str, Any]) -> str:
    """Return the card.

    Args:
        manifest: of the checkpoint.
        config: of the model.
        record: what ``export.json`` will say.
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
        "largest difference to the trained model's logits": (
            f"{parity['max_abs_difference']:.2e} (largest logit {parity['max_abs_logit']:.2f}, "
            f"{parity['positions']:,} positions)"
        ),
    }
    family = f"{FAMILIES[record['huggingface_class']]}-style"
    return _CARD.format(
        run=record["run"],
        family=family,
        parameters=record["parameters"],
        step=record["step"],
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
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
    return [f"{str(source['path']).rstrip('/').rpartition('/')[2]} (weight {source['weight']:g})" for source in sources]
