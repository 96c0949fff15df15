"""Runs that others published, read from a CSV file, as workloads that a plan can be made for.

What a row leaves out is assumed, by rules that are the same for all rows: see the functions below.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from gptdist.config.model import ModelConfig
from gptdist.config.shipped import shipped_folder
from gptdist.config.source import read_tree
from gptdist.errors import ConfigError
from gptdist.mesh.layout import Layout
from gptdist.plan.device import Device, Network, find_device, find_network
from gptdist.plan.workload import Precision, Recomputation, Software, Workload

COLUMNS = ("source", "table", "model", "seq", "gpu", "tp", "shard", "mbs", "gbs_seqs", "precision", "act_ckpt")
"""Columns that a file must have; ``sec_it``, ``tok_s_gpu``, ``tflops_gpu`` or ``mem_gb`` say what was measured."""

DEVICES = {
    "A100-80GB": "a100-80gb",
    "a100_80gb": "a100-80gb",
    "a100_40gb": "a100-40gb",
    "h100_80gb": "h100-80gb",
    "H100": "h100-80gb",
    "H100-80GB": "h100-80gb",
    "H100-96GB-HBM2e-500W": "h100-96gb-500w",
    "H200": "h200-141gb",
    "B200": "b200-180gb",
    "GB200": "gb200-186gb",
    "GB300": "gb300-279gb",
    "V100": "v100-32gb",
    "MI300X": "mi300x-192gb",
}
"""Our names of the devices by those of the rows."""

LLAMA3_405B = {"num_layers": 126, "hidden_size": 16384, "num_attention_heads": 128, "ffn_hidden_size": 53248}
"""What sets it apart from the preset of 70B; other models that a row only names have presets of that name."""

OLD = Software(attention="unfused", overlaps_gradients=False)
MEGATRON_CORE = Software(attention="cudnn", overlaps_tensor_parallel=True, balances_stages=True)
SOFTWARE = {
    "arXiv:2104.04473": OLD,
    "arXiv:2205.05198": OLD,
    "bigscience": OLD,
    "Megatron-LM": MEGATRON_CORE,
    "Megatron-Bridge": MEGATRON_CORE,
    "torchtitan": Software(attention="cudnn"),
}
"""By the beginning of a source's name; any other has attention kernels of A100's time."""

NETWORKS = {"bigscience": "opa-4x100"}
"""Networks by source; others have what their devices' files say."""

BALANCED = ("Rebalancing layers", "production")
"""Tables of BigScience from which on embedding and output projection counted as layers."""

STEADY_MICRO_BATCHES = 32
"""Micro batches a stage where a row does not say: so many that the pipeline's bubble hardly counts."""

UNKNOWN_HEADS = 64
"""Where a row does not say: divides the hidden sizes of all such rows."""

EXCLUDED = "SUSPECT"
"""In a row's note: its figures contradict its source's other ones."""


@dataclass(frozen=True)
class PublishedRun:
    """One row."""

    row: int
    """Its line in the file; the header is line 1."""

    source: str
    table: str
    label: str
    workload: Workload
    device: Device
    network: Network | None
    adds_fp32_gradients: bool
    """Whether gradients add up in fp32 beside those in bf16."""

    has_lean_logits: bool
    """Whether logits are never kept in fp32 beside those in 16 bits."""

    tells_recomputation: bool
    """Whether the row says what is computed again; otherwise nothing can be said of its memory."""

    step_seconds: float | None
    memory_gib: float | None
    """GiB of the fullest GPU."""

    ran_out: bool
    """Whether it ran out of memory."""


def read_published(path: Path) -> list[PublishedRun]:
    """Return the runs of a CSV file, without those whose note says that they are suspect.

    Raises:
        ConfigError: no such file, columns are missing, or rows cannot be read: each with its line.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; name a CSV file of published runs"]) from None
    missing = [name for name in COLUMNS if rows and name not in rows[0]]
    if missing or not rows:
        raise ConfigError(
            [
                f"{path}: no column {', '.join(missing or COLUMNS)}; "
                "benchmarks/published_runs.csv in the project's sources has them all"
            ]
        )
    found, bad = [], []
    for number, row in enumerate(rows, 2):
        if EXCLUDED in row.get("note", ""):
            continue
        try:
            found.append(_run(number, row))
        except ConfigError as error:
            bad += [f"{path}:{number}: {problem}" for problem in error.problems]
        except (ValueError, KeyError, ZeroDivisionError) as error:
            bad.append(f"{path}:{number}: cannot be read ({error!r}); mend the row, or mark it {EXCLUDED} in its note")
    if bad:
        raise ConfigError(bad)
    return found


def source_name(run: PublishedRun) -> str:
    """Return the source in short, by which runs are held out together."""
    first = run.source.split(" ")[0]
    return first.split("/")[0] if not first.startswith("arXiv") else first


def _number(row: dict[str, str], name: str) -> float | None:
    text = row.get(name) or ""
    return float(text.strip("*")) if text.strip("*") else None


def _whole(row: dict[str, str], name: str, default: int) -> int:
    number = _number(row, name)
    return default if number is None else int(number)


def _run(number: int, row: dict[str, str]) -> PublishedRun:
    source = row["source"]
    model = _model(row)
    tensor, stages, context = _whole(row, "tp", 1), _whole(row, "pp", 1), _whole(row, "cp", 1)
    ranks = _whole(row, "n_gpus", max(tensor * stages * context, 8))
    replicas = _whole(row, "dp", ranks // (tensor * stages * context))
    if not row.get("n_gpus"):
        replicas = ranks // (tensor * stages * context)
    micro = _whole(row, "mbs", 16 if tensor * stages < 8 else max(1, 8 // stages))  # as much as memory would hold
    batch = _whole(row, "gbs_seqs", micro * replicas * STEADY_MICRO_BATCHES * stages)
    software = next((found for name, found in SOFTWARE.items() if source.startswith(name)), Software("flash2"))
    if row["table"] in BALANCED and source.startswith("bigscience"):
        software = Software("unfused", overlaps_gradients=False, balances_stages=True)
    software = _as_noted(software, row)
    workload = Workload(
        model=model,
        layout=Layout(tensor, context, replicas, stages),
        micro_batch_size=micro,
        num_micro_batches=max(1, batch // (micro * replicas)),
        precision=_precision(row["precision"]),
        zero_stage=_zero_stage(row["shard"]),
        sequence_parallel="no SP" not in row["act_ckpt"]
        and ("SP" in row["act_ckpt"] or source.startswith(("Megatron-", "torchtitan"))),
        recomputation=_recomputation(row, software),
        virtual_stages=_whole(row, "vp", 1),
        software=software,
    )
    memory = row.get("mem_gb") or ""
    network = next((found for name, found in NETWORKS.items() if source.startswith(name)), None)
    return PublishedRun(
        row=number,
        source=source,
        table=row["table"],
        label=f"{row['model']} {row.get('params_b') or ''}".strip(),
        workload=workload,
        device=find_device(DEVICES.get(row["gpu"], row["gpu"])),
        network=None if network is None else find_network(network),
        adds_fp32_gradients="fp32 grad" in row["precision"],
        has_lean_logits="PURE" in row["precision"] or "compile" in row["precision"],
        tells_recomputation=bool(row["act_ckpt"]),
        step_seconds=_seconds(row, workload, batch),
        memory_gib=None if memory in ("", "OOM") else float(memory),
        ran_out=memory == "OOM",
    )


def _model(row: dict[str, str]) -> ModelConfig:
    sequence = _whole(row, "seq", 2048)
    if not row.get("hidden"):
        is_largest = row["model"].endswith("405B")
        preset = "llama3-70b" if is_largest else row["model"].lower()
        tree = dict(read_tree(shipped_folder() / "models" / f"{preset}.yaml")["model"])
        tree |= LLAMA3_405B if is_largest else {}
        return ModelConfig(**(tree | {"seq_length": sequence}))
    hidden, vocab = int(row["hidden"]), int(row["vocab"])
    is_llama = "lama" in row["model"]
    layers = _number(row, "layers")
    if layers is None:  # only the size is told
        layers = round(((_number(row, "params_b") or 0.0) * 1e9 - vocab * hidden) / (12 * hidden * hidden))
    heads = _whole(row, "heads", UNKNOWN_HEADS)
    return ModelConfig(
        num_layers=int(layers),
        hidden_size=hidden,
        num_attention_heads=heads,
        num_query_groups=_whole(row, "kv_heads", heads),
        ffn_hidden_size=_whole(row, "ffn", 4 * hidden),
        seq_length=sequence,
        vocab_size=vocab,
        position_embedding="rope" if is_llama else "learned",
        normalization="rmsnorm" if is_llama else "layernorm",
        activation="swiglu" if is_llama else "gelu_tanh",
        add_bias=not is_llama,
        tie_embeddings=not is_llama,
    )


def _precision(text: str) -> Precision:
    if "fp8" in text or "float8" in text:
        return "fp8"
    return "fp16" if text.startswith("fp16") else "bf16"


def _zero_stage(shard: str) -> int:
    if shard in ("none", "zero0"):
        return 0
    if shard in ("FULL_SHARD", "FSDP2", "zero3") or (shard.startswith("FSDP=") and shard != "FSDP=0"):
        return 3
    return 2 if shard == "SHARD_GRAD_OP" else 1


def _as_noted(software: Software, row: dict[str, str]) -> Software:
    """Return it with what one row says of itself."""
    note = row.get("note", "")
    return Software(
        attention=software.attention,
        overlaps_tensor_parallel=software.overlaps_tensor_parallel or note.startswith("async TP"),
        overlaps_gradients=software.overlaps_gradients or row["shard"] == "zero3",
        gathers_eagerly=row["shard"] == "zero3",
        balances_stages=software.balances_stages,
        rowwise_fp8="rowwise" in row["precision"],
    )


def _recomputation(row: dict[str, str], software: Software) -> Recomputation:
    """Return what is computed again; torchtitan's selective kind keeps every second product."""
    kind = row["act_ckpt"]
    if kind.startswith("full"):
        return Recomputation(1.0, 1.0, 1.0)
    if not kind.startswith("selective"):
        return Recomputation()
    return Recomputation(attention=1.0) if software.attention == "unfused" else Recomputation(matrices=0.5, rest=1.0)


def _seconds(row: dict[str, str], workload: Workload, batch: int) -> float | None:
    """Return seconds of a step of ``batch`` sequences, from what the row gives of it."""
    seconds, rate, teraflops = _number(row, "sec_it"), _number(row, "tok_s_gpu"), _number(row, "tflops_gpu")
    model, ranks = workload.model, workload.layout.world_size
    if seconds is not None:
        return seconds
    if rate is not None:
        return workload.step_tokens / (rate * ranks)
    if teraflops is None:
        return None
    layers, hidden, sequence = model.num_layers, model.hidden_size, model.seq_length
    # Narayanan et al. 2021, arXiv 2104.04473, equation 3: with all activations computed again.
    flops = 96.0 * batch * sequence * layers * hidden**2
    flops *= 1 + sequence / (6 * hidden) + model.vocab_size / (16 * layers * hidden)
    return flops / (teraflops * 1e12 * ranks)
