"""Perplexities of a trained model with half of its weights at zero, beside what other libraries make of it.

``python -m benchmarks.compress_sparsity RUN --output DIR [--llmcompressor-python PATH]``: RUN is a trained run's folder
of a family whose layers are torch's Linear (not GPT-2), whose data have to be there. All methods see the same
calibration tokens of the training mixture, all models are measured on the same held-out tokens. Magnitude is compared
with torch's pruning of each matrix, Wanda with torchao's (which multiplies by squared lengths, and without a pattern
compares whole matrices), and, if the Python of an environment with llm-compressor is named, Wanda and SparseGPT with
that. The aims: SparseGPT <= Wanda < magnitude, and a ratio of at most 1.01 to the references.
"""

import argparse
import math
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn.utils.prune import l1_unstructured, remove

from benchmarks.comparison import Comparison, add_options, write
from benchmarks.peer_environment import why_missing
from gptdist.checkpoint.find import resolve_checkpoint
from gptdist.checkpoint.read import CheckpointReader
from gptdist.compress.calibration import CalibrationOptions
from gptdist.compress.export import ExportOptions, export_checkpoint
from gptdist.compress.hf_model import load_huggingface_model
from gptdist.compress.prune.calibration_tokens import calibration_tokens
from gptdist.compress.prune.held_out import held_out_tokens
from gptdist.compress.prune.measure import mean_loss
from gptdist.compress.prune.options import WeightOptions
from gptdist.compress.prune.weights import prune_weights
from gptdist.mesh.groups import destroy_mesh
from gptdist.train.inference import load_model, single_process_mesh

PEER = Path(__file__).parent / "peers" / "prune_llmcompressor.py"
TARGET = 1.01
AMOUNTS: dict[str, dict[str, Any]] = {"50 %": {"ratio": 0.5}, "2:4": {"pattern": "2:4"}}


@dataclass(frozen=True)
class Material:
    """What every model is made of and measured on."""

    run: Path
    exported: Path
    output: Path
    calibration: CalibrationOptions
    calibration_ids: np.ndarray
    held_out_ids: np.ndarray
    llmcompressor: Path | None


def loss_of_checkpoint(folder: Path, rows: np.ndarray) -> float:
    """Return the loss of a checkpoint, nats a token."""
    try:
        return mean_loss(load_model(CheckpointReader(resolve_checkpoint(folder)), single_process_mesh()), rows)
    finally:
        destroy_mesh()


def loss_of_network(network: Any, rows: np.ndarray) -> float:
    """Return the loss of a Hugging Face model on the same tokens, nats a token."""
    tokens, total = torch.from_numpy(rows), 0.0
    with torch.inference_mode():
        for row in tokens:
            logits = network(row[None, :-1]).logits[0]
            total += float(nn.functional.cross_entropy(logits.float(), row[1:]))
    return total / len(rows)


def linears(network: nn.Module) -> dict[str, nn.Linear]:
    """Return the linear layers that are pruned, by name."""
    found = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    return {name: module for name, module in found.items() if name != "lm_head"}


def references(material: Material, amount: str) -> Iterator[tuple[str, str, float]]:
    """Yield library, method and loss of what others make of the exported model."""
    rows = material.held_out_ids
    if amount == "50 %":
        network = load_huggingface_model(material.exported)
        for linear in linears(network).values():
            l1_unstructured(linear, "weight", amount=0.5)
            remove(linear, "weight")
        yield "torch", "magnitude", loss_of_network(network, rows)
    yield "torchao", "wanda", loss_of_network(_by_torchao(material, amount), rows)
    for method in ("wanda", "sparsegpt") if material.llmcompressor is not None else ():
        folder = material.output / f"llmcompressor-{method}-{amount.strip(' %').replace(':', 'of')}"
        tokens = material.output / "calibration.safetensors"
        pattern = "0:0" if amount == "50 %" else amount
        command = [str(material.llmcompressor), str(PEER), str(material.exported), str(folder), method, pattern]
        subprocess.run([*command, str(tokens)], check=True, stdout=sys.stderr)
        yield "llm-compressor", method, loss_of_network(load_huggingface_model(folder), rows)


def _by_torchao(material: Material, amount: str) -> Any:
    from torchao.sparsity.wanda import WandaSparsifier

    network = load_huggingface_model(material.exported)
    sparsifier = WandaSparsifier(sparsity_level=0.5, semi_structured_block_size=None if amount == "50 %" else 4)
    sparsifier.prepare(network, [{"tensor_fqn": f"{name}.weight"} for name in linears(network)])
    with torch.no_grad():
        for row in torch.from_numpy(material.calibration_ids):
            network(row[None])
    sparsifier.step()
    sparsifier.squash_mask()
    return network


def run(material: Material) -> list[Comparison]:
    """Print the table, and return perplexities beside those of other libraries."""
    found = []
    dense = loss_of_checkpoint(material.run, material.held_out_ids)
    print(f"{'amount':<8} {'method':<12} {'by':<16} {'loss (nats/token)':>18} {'perplexity':>12} {'ours / theirs':>14}")
    print(f"{'-':<8} {'dense':<12} {'gptdist':<16} {dense:>18.4f} {math.exp(dense):>12.3f} {'-':>14}")
    for amount, options in AMOUNTS.items():
        ours = {}
        for method in ("magnitude", "wanda", "sparsegpt"):
            folder = material.output / f"{method}-{amount.strip(' %').replace(':', 'of')}"
            if not folder.exists():
                chosen = WeightOptions(method=method, calibration=material.calibration, **options)  # type: ignore[arg-type]  # one of three
                prune_weights(material.run, folder, chosen)
            ours[method] = loss = loss_of_checkpoint(folder, material.held_out_ids)
            print(f"{amount:<8} {method:<12} {'gptdist':<16} {loss:>18.4f} {math.exp(loss):>12.3f} {'-':>14}")
        for library, method, loss in references(material, amount):
            ratio = math.exp(ours[method] - loss)
            print(f"{amount:<8} {method:<12} {library:<16} {loss:>18.4f} {math.exp(loss):>12.3f} {ratio:>14.4f}")
            sides = ([math.exp(ours[method])], [math.exp(loss)])
            name, note = f"{method}, {amount} of the weights at zero", f"dense: {math.exp(dense):.3f}"
            found.append(Comparison(name, library, "perplexity", *sides, "lower", TARGET, note=note))
        if material.llmcompressor is None:
            why = why_missing(None, "llmcompressor")
            name = f"sparsegpt, {amount} of the weights at zero"
            sides = ([math.exp(ours["sparsegpt"])], [])
            found.append(Comparison(name, "llm-compressor", "perplexity", *sides, "lower", TARGET, missing=why))
    return found


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--sequences", type=int, default=128, help="calibration sequences (default: 128)")
    parser.add_argument("--held-out", type=int, default=64, help="held-out sequences (default: 64)")
    parser.add_argument("--llmcompressor-python", type=Path, metavar="PATH")
    add_options(parser)
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    run_now = resolve_checkpoint(arguments.run)  # a run that goes on would be another model for each method
    manifest, output = CheckpointReader(run_now).manifest, arguments.output / run_now.name
    length = int(manifest.config["model"]["seq_length"])
    sequences, held_out_sequences = (4, 4) if arguments.quick else (arguments.sequences, arguments.held_out)
    calibration = CalibrationOptions(sequences=sequences, length=length)
    exported = output / "dense"
    if not exported.exists():
        output.mkdir(parents=True, exist_ok=True)
        export_checkpoint(run_now, exported, options=ExportOptions())
    ids = calibration_tokens(run_now, manifest, (), calibration)[0]
    save_file({"input_ids": ids}, output / "calibration.safetensors")
    held_out = held_out_tokens(run_now, manifest, (), replace(calibration, seed=1), held_out_sequences)
    material = Material(run_now, exported, output, calibration, ids, held_out, arguments.llmcompressor_python)
    write(arguments.json, run(material))


if __name__ == "__main__":
    main()
