"""Memory that writing a model takes, beside its largest tensor.

``python -m benchmarks.export_memory [--vocabulary N]``. A checkpoint whose embedding is most of it is written to disk
and exported by a fresh process for each format, after a first tiny one has loaded the libraries. Measured is the
highest resident memory beyond that, mapped files left out. It is of the writing: the comparison with the trained model,
which holds a whole model at a time, is left out as ``--no-check`` does.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.comparison import Comparison, add_options, tell, write

GOAL = 3.0
"""Times the largest tensor."""

FORMATS = ("hf float32", "hf bfloat16", "gguf float32", "gguf float16", "gguf q8_0")
HIDDEN = 256


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vocabulary", type=int, default=400_000, help="rows of the embedding")
    add_options(parser)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--format", choices=FORMATS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.format is not None:
        print(_measure(arguments.checkpoint, arguments.format))
        return
    rows = 20_000 if arguments.quick else arguments.vocabulary
    largest = 4 * rows * HIDDEN
    comparisons: list[Comparison] = []
    print(f"largest tensor {largest / 1e6:,.0f} MB; goal at most {GOAL:g} times that")
    with tempfile.TemporaryDirectory() as folder:
        for name, size in (("small", 512), ("large", rows)):
            _write_checkpoint(Path(folder, name), size)
        for form in FORMATS:
            argv = [sys.executable, "-m", "benchmarks.export_memory", "--checkpoint", folder, "--format", form]
            done = subprocess.run(argv, capture_output=True, text=True, check=True)
            found = int(done.stdout.splitlines()[-1])
            sides = ([found / 1e6], [largest / 1e6])
            comparisons.append(Comparison(form, "the largest tensor", "MB", *sides, "lower", GOAL, "yardstick"))
    write(arguments.json, tell(comparisons))


def _measure(folder: Path, form: str) -> int:
    """Return bytes that the export of ``folder``/large takes beyond that of ``folder``/small."""
    import torch

    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.compress.export import ExportOptions, export_model, trained_logits
    from gptdist.compress.gguf_export import FORMATS as KINDS
    from gptdist.compress.gguf_export import write_gguf
    from gptdist.config.model import ModelConfig
    from gptdist.tokenizer.training import train_bpe
    from tests.support.datasets import make_documents
    from tests.support.memory import peak_bytes

    torch.set_num_threads(1)
    target, dtype = form.split()
    tokenizer = train_bpe(make_documents(50, seed=0), 300)

    def export(name: str) -> None:
        reader = CheckpointReader(folder / name)
        output = folder / f"{name} {form}"
        if target == "hf":
            options = ExportOptions(dtype=dtype, is_compared=False)
            export_model(
                reader,
                output,
                tokenizer=tokenizer,
                sample_tokens=None,
                options=options,
                logits=lambda tokens, rounded: trained_logits(reader, tokens, rounded),
            )
        else:
            config = ModelConfig.from_tree(reader.manifest.config["model"])
            write_gguf(output, config, reader, tokenizer, KINDS[dtype])

    export("small")
    return peak_bytes(export, "large")


def _write_checkpoint(folder: Path, rows: int) -> None:
    import torch

    from gptdist.checkpoint.manifest import Origin, Progress
    from gptdist.checkpoint.weights_only import write_weights
    from gptdist.config.model import ModelConfig
    from gptdist.model.hf_names import logical_shapes

    config = ModelConfig(num_layers=2, hidden_size=HIDDEN, num_attention_heads=4, seq_length=64, vocab_size=rows)

    def tensors() -> Iterator[tuple[str, torch.Tensor]]:
        for name, shape in logical_shapes(config).items():
            yield name, torch.linspace(-1.0, 1.0, math.prod(shape)).view(shape)

    write_weights(
        folder,
        tensors(),
        config={"name": "memory", "model": config.tree(), "data": {"sources": []}},
        progress=Progress(step=0, consumed_samples=0, consumed_tokens=0, optimizer_step=0),
        tokenizer_fingerprint="",
        origin=Origin(kind="average", sources=()),
    )


if __name__ == "__main__":
    main()
