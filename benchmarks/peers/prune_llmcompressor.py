"""Prune an exported model with llm-compressor, in whose own environment this runs; nothing of gptdist is there.

``python prune_llmcompressor.py FOLDER OUTPUT wanda|sparsegpt N:M TOKENS``: 0:0 is no pattern; half of the weights go.
"""

import sys

from datasets import Dataset
from llmcompressor import oneshot
from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
from safetensors.numpy import load_file
from transformers import AutoModelForCausalLM


def main() -> None:
    """Prune as the command line says."""
    folder, output, method, pattern, tokens = sys.argv[1:]
    ids = load_file(tokens)["input_ids"].tolist()
    data = Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids]})
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", local_files_only=True)
    kind = {"wanda": WandaPruningModifier, "sparsegpt": SparseGPTModifier}[method]
    # As a regular expression: by its plain name a tied output matrix is pruned all the same, and the embedding with it.
    recipe = kind(sparsity=0.5, mask_structure=pattern, targets=["Linear"], ignore=["re:.*lm_head"])
    oneshot(
        model=model,
        dataset=data,
        recipe=recipe,
        num_calibration_samples=len(ids),
        max_seq_length=len(ids[0]),
    )
    model.save_pretrained(output, save_compressed=False)


if __name__ == "__main__":
    main()
