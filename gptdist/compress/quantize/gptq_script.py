"""GPTQ by llm-compressor, run by the interpreter of an environment of its own, where gptdist is not installed.

    python gptq_script.py SOURCE TARGET CALIBRATION GROUP_SIZE

SOURCE and TARGET are Hugging Face folders, CALIBRATION a safetensors file with ``input_ids`` [n, s].
"""

import sys
from typing import Any


def main(source: str, target: str, calibration: str, group_size: int) -> None:
    """Quantize all linear layers but the output layer."""
    import torch
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.quantization import GPTQModifier
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, local_files_only=True)
    embedding = model.get_input_embeddings().weight.detach().clone()
    ids = load_file(calibration)["input_ids"].long()
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in ids.tolist()]
    weights = {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": group_size}
    oneshot(
        model=model,
        dataset=Dataset.from_list(rows),
        # by a pattern: by its plain name the library does not keep an output layer that is tied to the embedding
        recipe=GPTQModifier(
            config_groups={"group_0": {"targets": ["Linear"], "weights": weights}}, ignore=["re:.*lm_head"]
        ),
        max_seq_length=ids.shape[1],
        num_calibration_samples=len(rows),
    )
    if not torch.equal(model.get_input_embeddings().weight, embedding):
        sys.exit("the embedding was changed, which this backend may not do")
    model.save_pretrained(target, save_compressed=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
