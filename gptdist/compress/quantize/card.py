"""README.md of a quantized folder."""

from collections.abc import Mapping
from typing import Any

_CARD = """---
library_name: transformers
pipeline_tag: text-generation
---
# {name}, {scheme}

`{name}` with the weights of its {layers} linear layers in {scheme}{groups}, by {backend}. Embeddings, output layer,
norms and biases are as they were; what is computed is fp32.

| | before | after |
| --- | --- | --- |
| perplexity of held-out tokens | {ppl_before:.4f} | {ppl_after:.4f} |
| bits per byte | {bits_before:.4f} | {bits_after:.4f} |
| bytes of the weights' files | {bytes_before:,} | {bytes_after:,} |

```python
from transformers import AutoModelForCausalLM, AutoTokenizer  # {library} has to be installed

tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
model = AutoModelForCausalLM.from_pretrained("path/to/this/folder")
```

`export.json` holds the files' SHA-256, and what identifies the model that this one was made of.
"""


def quantized_card(name: str, record: Mapping[str, Any]) -> str:
    """Return the card.

    Args:
        name: of the model that was quantized.
        record: what ``export.json`` will say.
    """
    how, before, after = record["quantization"], record["before"], record["after"]
    group_size = how["group_size"]
    return _CARD.format(
        name=name,
        scheme=how["scheme"],
        layers=how["layers"],
        groups="" if group_size is None else f", a scale for {group_size} of them",
        backend=how["backend"],
        library="torchao" if how["scheme"] == "int8" else "compressed-tensors",
        ppl_before=before["perplexity"],
        ppl_after=after["perplexity"],
        bits_before=before["bits_per_byte"],
        bits_after=after["bits_per_byte"],
        bytes_before=record["weights_bytes_before"],
        bytes_after=record["weights_bytes_after"],
    )
