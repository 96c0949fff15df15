"""``gptdist evaluate CHECKPOINT``: validation loss and bits per byte of a checkpoint."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("checkpoint", type=Path, help="run folder or step folder")
    parser.add_argument("--eval-samples", type=int, help="windows a source (0: all); default as in the run's config")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    import dataclasses
    import json
    import warnings

    from gptdist.checkpoint.find import resolve_checkpoint
    from gptdist.checkpoint.read import CheckpointReader
    from gptdist.config.run import RunConfig
    from gptdist.data.rules import SampleRules
    from gptdist.data.sources import check_tokenizer, validation_sources
    from gptdist.errors import ConfigError, DataError

    folder = resolve_checkpoint(arguments.checkpoint)
    reader = CheckpointReader(folder)
    config = RunConfig.from_tree(reader.manifest.config, origin=str(folder))
    if arguments.eval_samples is not None:
        data = config.data.model_copy(update={"eval_samples": arguments.eval_samples})
        config = config.model_copy(update={"data": data})
    problems = config.data.problems() + config.data.path_problems()
    if problems:
        raise ConfigError(problems)
    tokenizer = check_tokenizer(config)
    if tokenizer.fingerprint != reader.manifest.tokenizer_fingerprint:
        raise DataError(
            f"{config.data.tokenizer}: is not the tokenizer that {folder} was trained with; restore it from the data "
            f"that the run was trained on"
        )
    sources = validation_sources(config)

    warnings.filterwarnings("ignore")
    from gptdist.device.device import choose_device
    from gptdist.train.evaluate import evaluate, perplexity
    from gptdist.train.inference import load_model, single_process_mesh

    mesh = single_process_mesh()
    model = load_model(reader, mesh, arguments.device)
    found = evaluate(
        model,
        sources,
        mesh,
        micro_batch_size=config.batch.micro_batch_size,
        token_bytes=tokenizer.token_byte_lengths(),
        rules=SampleRules.of(config.data, tokenizer),
        device=choose_device(arguments.device, "fp32", 0).torch_device,
    )
    if arguments.json:
        print(json.dumps({"checkpoint": str(folder), "step": reader.manifest.step, **dataclasses.asdict(found)}))
        return
    print(f"{folder}, step {reader.manifest.step}")
    head = f"{'source or set':<20} {'loss (nats/token)':>18} {'bits/byte':>10} {'perplexity':>12}"
    print(f"{head} {'tokens':>12} {'bytes':>12}")
    for one in found.sources:
        numbers = f"{one.loss:>18.4f} {one.bits_per_byte:>10.4f} {one.perplexity:>12.4g}"
        print(f"{one.name:<20} {numbers} {one.tokens:>12,} {one.text_bytes:>12,}")
    print(f"{'mixture':<20} {found.loss:>18.4f} {found.bits_per_byte:>10.4f} {perplexity(found.loss):>12.4g}")
    print("bits/byte = loss x tokens / ln 2 / UTF-8 bytes of the predicted tokens; mixture: weighted as in training")
