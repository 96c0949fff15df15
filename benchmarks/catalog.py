"""Every comparison that ``python -m benchmarks.run_all`` runs, in its order, and what its figures mean.

In arguments ``{corpus}``, ``{peers}`` and ``{work}`` stand for the pages of ``benchmarks.corpus``, the interpreter of
the peers' environment, and a folder that is kept.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One comparison: a module that takes ``--json FILE`` and ``--quick``."""

    name: str
    title: str
    module: str
    meaning: str
    minutes: float
    """About how long it takes on two cores, for who plans an hour."""

    arguments: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    """Distributions of the peers' environment that it stands beside; without them it still says ours."""

    is_long: bool = False
    """Left out unless it is asked for."""

    @property
    def needs_corpus(self) -> bool:
        """Whether it measures on pages."""
        return "{corpus}" in self.arguments


def _prep(part: str, title: str, meaning: str, minutes: float, peers: tuple[str, ...]) -> Entry:
    arguments = ("{corpus}", "--only", part, "--rounds", "3")
    return Entry(f"prep_{part}", title, "benchmarks.data_prep", meaning, minutes, arguments, peers)


ENTRIES = (
    Entry(
        "start_up",
        "Start of a command",
        "benchmarks.launch",
        "Seconds until the help is printed, and until a login node has a launch's plan or the reason why there is none "
        "(beside the import of torch alone, which neither needs).",
        0.7,
        ("--only", "starts", "--rounds", "5"),
    ),
    Entry(
        "restart",
        "From a killed rank to the next step",
        "benchmarks.launch",
        "Seconds from `kill -9` of one of two ranks to the first step of the next attempt, with torchrun's own restart "
        "of the same training as the other.",
        1.5,
        ("--only", "restarts", "--rounds", "3"),
    ),
    Entry(
        "train_step",
        "Training speed",
        "benchmarks.train_step",
        "Tokens a second in fp32 on a CPU, all contenders warm and taking turns. One process of two threads and a "
        "model of 23 M parameters beside other trainers, a bare loop on such an engine and the machine's matrix "
        "multiplication; two ranks of one thread beside torch's DDP; ZeRO-3 beside ZeRO-1 at 81 M parameters. It "
        "says nothing of GPUs.",
        5.0,
        ("--rounds", "3", "--steps", "1", "--peers", "{peers}"),
        ("transformers", "litgpt"),
    ),
    Entry(
        "train_memory",
        "Memory of a rank in training",
        "benchmarks.train_memory",
        "The formula that `gptdist plan` uses over the highest resident memory of a rank, for every ZeRO stage with "
        "and without tensor parallelism; 1 is an exact formula.",
        1.8,
        ("--family", "llama"),
    ),
    Entry(
        "train_data",
        "Opening a large corpus",
        "benchmarks.train_data",
        "Seconds and host memory until the first batch of a corpus of sparse files, beside megatron-core's GPTDataset "
        "on the very same files, which writes an index of all samples first; ours computes it. What theirs takes grows "
        "with the corpus, what ours takes does not.",
        0.8,
        ("--rounds", "3", "--parts", "1", "5"),
    ),
    Entry(
        "distill_step",
        "A step under a teacher",
        "benchmarks.distill_step",
        "A distillation step over the sum of what it cannot do without: a plain step of the student and a forward pass "
        "of the teacher.",
        2.0,
        ("--rounds", "3"),
    ),
    Entry(
        "checkpoint",
        "Checkpoints",
        "benchmarks.checkpoint",
        "Saving and loading 81 M parameters with their optimizer, by turns on the state of one engine, beside "
        "DeepSpeed's own checkpoints, torch.distributed.checkpoint, `dd` with fsync and a plain read; other layouts; "
        "host memory. Cold: the files were dropped from the page cache before.",
        4.0,
        ("--rounds", "3", "--folder", "{work}"),
    ),
    _prep(
        "extract",
        "Text from HTML",
        "Pages a CPU second; the note says how much of each one's words is in the other's.",
        0.8,
        ("trafilatura",),
    ),
    _prep(
        "quality",
        "Quality rules",
        "Documents a CPU second for the same rules, and on how many of them both decide the same.",
        1.2,
        ("datatrove", "spacy"),
    ),
    _prep(
        "near_duplicates",
        "Near-duplicates",
        "Documents a CPU second for signatures, meetings and clusters together; ours on more documents than theirs, "
        "which take longer. The log says what each found of planted copies.",
        1.2,
        ("datatrove",),
    ),
    _prep(
        "tokenize",
        "JSON Lines to token shards",
        "MB of JSON a CPU second with the same BPE of 50,257 ids. Ours reads, accounts for every document, shuffles "
        "globally and writes shards with provenance; `documents to shards` leaves our reading and account out and "
        "theirs in.",
        1.5,
        ("datatrove", "datasets", "tokenizers"),
    ),
    _prep(
        "privacy",
        "Personal data",
        "MB of text a CPU second; ours looks for six kinds of data, theirs for two.",
        0.6,
        ("datatrove",),
    ),
    _prep(
        "pipeline",
        "The whole of data preparation",
        "Pages a second of two workers beside one, from WARC to shards, with every kind of stage. The log says where "
        "the time goes.",
        2.0,
        (),
    ),
    Entry(
        "export_memory",
        "Memory of an export",
        "benchmarks.export_memory",
        "Highest host memory while a model is written, over its largest tensor.",
        0.8,
    ),
    Entry(
        "plan_accuracy",
        "The planner beside published runs",
        "benchmarks.plan_accuracy",
        "Predicted over published, the median of a source's rows, by constants that were fitted without any row of "
        "that source (memory: of that table); docs/plan_accuracy.md has the rows.",
        0.1,
    ),
    Entry(
        "compress",
        "Smaller models of a trained one",
        "benchmarks.compress",
        "Perplexity of a trained model of 2 M parameters with half of its weights at zero, beside what other libraries "
        "make of the same model and the same calibration tokens; and the validation loss of a distilled half beside "
        "the same shape trained from scratch on the same tokens.",
        60.0,
        ("{work}/compress", "--only", "compress_sparsity", "compress_structure", "--llmcompressor-python", "{peers}"),
        ("llmcompressor",),
        is_long=True,
    ),
)

NOT_COMPARISONS = {
    "__init__": "package",
    "catalog": "this list",
    "checkpoint_figures": "figures of checkpoint",
    "checkpoint_peers": "part of checkpoint",
    "checkpoint_rank": "part of checkpoint",
    "code_shape": "measures the code itself, beside nothing",
    "comparison": "the data that each gives",
    "compress_sparsity": "part of compress",
    "compress_structure": "part of compress",
    "contenders": "programs that take turns",
    "corpus": "pages to measure on",
    "debian_pages": "makes a corpus",
    "machine": "what it was measured on",
    "peer_environment": "installs what stands beside ours",
    "plan_fit": "fits constants",
    "plan_page": "writes docs/plan_accuracy.md",
    "prep_extract": "part of data_prep",
    "prep_near_duplicates": "part of data_prep",
    "prep_pipeline": "part of data_prep",
    "prep_privacy": "part of data_prep",
    "prep_quality": "part of data_prep",
    "prep_tokenize": "part of data_prep",
    "rank": "begins a rank",
    "record": "keeps what was found",
    "results_page": "writes the page",
    "run_all": "runs the list",
    "side_by_side": "runs programs for their CPU seconds",
    "train_ours": "part of train_step",
}
"""Modules here that compare nothing by themselves, and what they are."""
