"""``gptdist scaling [--flops C | --parameters N | --tokens D | --config CONFIG | --devices K …] [--law NAME]``."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptdist.cli.answer import add_json, print_json

if TYPE_CHECKING:
    from gptdist.plan.laws import Law, Size
    from gptdist.plan.scaling import Answer, Known

NUMBERS = ("flops", "parameters", "tokens", "devices", "device_tflops", "days")
"""Options that hold a number."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this command's arguments to ``parser``."""
    parser.add_argument("--flops", metavar="C", help="training FLOPs, such as 1e23")
    parser.add_argument("--parameters", metavar="N", help="such as 7B")
    parser.add_argument("--tokens", metavar="D", help="such as 1.4T")
    parser.add_argument("--config", type=Path, help="run config, or a model of configs/models with --tokens or --flops")
    parser.add_argument("--devices", metavar="K", help="number of GPUs; FLOPs come of these, their rate and days")
    parser.add_argument("--device-tflops", metavar="T", help="model TFLOP/s that each achieves")
    parser.add_argument("--days", metavar="N", help="of training")
    parser.add_argument("--law", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    add_json(parser)
    parser.set_defaults(run=_scaling)


def _scaling(arguments: argparse.Namespace) -> None:
    from gptdist.errors import ConfigError
    from gptdist.plan.scaling import answer, chosen_laws

    problems: list[str] = []
    laws: list[Law] = []
    try:
        laws = chosen_laws(arguments.law)
    except ConfigError as error:
        problems += error.problems
    known = _known(arguments, problems)
    problems += known.problems(is_complete=not problems)
    if problems:
        raise ConfigError(problems)
    answers = [answer(law, known) for law in laws]
    if arguments.json:
        print_json([_tree(one) for one in answers])
        return
    for line in [*_heading(known), *_table(answers), *_notes(answers, known)]:
        print(line)


def _known(arguments: argparse.Namespace, problems: list[str]) -> "Known":
    """Return what the options say, and add what is wrong with them to ``problems``."""
    from gptdist.config.source import read_tree
    from gptdist.errors import ConfigError
    from gptdist.plan.scaling import DEVICE_DAYS, Known, device_flops, read_number

    numbers: dict[str, float] = {}
    for name in NUMBERS:
        text = getattr(arguments, name)
        if text is not None:
            try:
                numbers[name] = read_number(f"--{name.replace('_', '-')}", text)
            except ConfigError as error:
                problems += error.problems
    rates = [name for name in DEVICE_DAYS if getattr(arguments, name) is not None]
    missing = [f"--{name.replace('_', '-')}" for name in DEVICE_DAYS if name not in rates]
    if rates and missing:
        problems.append(f"{', '.join(missing)}: missing; devices, what each achieves and days make a budget together")
    if rates and arguments.flops is not None:
        problems.append("--flops: devices and days make a budget as well; leave one of the two out")
    if all(name in numbers for name in DEVICE_DAYS):
        numbers["flops"] = device_flops(*(numbers[name] for name in DEVICE_DAYS))
    model, tokens = None, numbers.get("tokens")
    if arguments.config is not None:
        try:
            model, planned = _read_model(read_tree(arguments.config), arguments.config)
            tokens = planned if tokens is None and "flops" not in numbers else tokens
        except ConfigError as error:
            problems += error.problems
    return Known(flops=numbers.get("flops"), parameters=numbers.get("parameters"), tokens=tokens, model=model)


def _read_model(tree: dict[str, Any], path: Path) -> tuple[Any, int | None]:
    """Return the model of a config, and the tokens that its run takes, where it says how long it trains."""
    from gptdist.config.model import ModelConfig
    from gptdist.config.run import RunConfig
    from gptdist.errors import ConfigError

    if "data" in tree:
        config = RunConfig.from_tree(tree, origin=str(path))
        model, problems = config.model, config.problems()
        tokens = None if problems else config.train_tokens
    elif "model" in tree:
        model = ModelConfig.from_tree(tree["model"], origin=f"{path}: model")
        problems, tokens = model.problems(), None
    else:
        raise ConfigError([f"{path}: model: missing; name a run config or a file of configs/models"])
    if problems:
        raise ConfigError(f"{path}: {problem}" for problem in problems)
    return model, tokens


def _heading(known: "Known") -> list[str]:
    """Return what was understood."""
    from gptdist.model.arithmetic import flops_per_token, num_active_parameters, num_parameters

    said = []
    if known.model is not None:
        total, active = num_parameters(known.model), num_active_parameters(known.model)
        said.append(f"{_short(total)} parameters" + (f", of which a token meets {_short(active)}" * (active < total)))
        tokens = known.tokens or (known.flops or 0.0) / flops_per_token(known.model)
        said += [f"{_short(tokens)} tokens", f"{flops_per_token(known.model) * tokens:.3g} FLOPs with attention"]
    else:
        said += [f"{known.flops:.3g} FLOPs"] if known.flops is not None else []
        said += [f"{_short(known.parameters)} parameters"] if known.parameters is not None else []
        said += [f"{_short(known.tokens)} tokens"] if known.tokens is not None else []
    return ["; ".join(said)]


def _table(answers: list["Answer"]) -> list[str]:
    """Return the laws' answers, one a line."""
    from gptdist.plan.scaling import nearest_preset

    presets = _presets()
    has_run = answers[0].run is not None
    head = ["law", "FLOPs", "parameters", "tokens", "a parameter", "loss", "nearest preset"]
    rows = [[*head, "loss asked", "wasted", "tokens for its N"] if has_run else head]
    for one in answers:
        row = [one.law.name, f"{one.best.flops:.2e}", *_size(one.best), _loss(one.best_loss)]
        row.append(nearest_preset(one.best.parameters, presets) or "-")
        if has_run:
            row += [_loss(one.loss), "-" if one.wasted is None else f"{one.wasted:.1%}"]
            row.append(_short(one.tokens_for_parameters or 0.0))
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _notes(answers: list["Answer"], known: "Known") -> list[str]:
    """Return what has to be known about the answers."""
    from gptdist.plan.laws import deepseek_batch_tokens, deepseek_learning_rate

    lines = [""]
    for one in answers:
        law = one.law
        lines.append(f"{law.name}: {law.source}; counts {law.counts.replace('_', ' ')}; {law.data}")
        if law.name == "deepseek":
            rate, batch = deepseek_learning_rate(one.best.flops), deepseek_batch_tokens(one.best.flops)
            lines.append(f"deepseek: for these FLOPs learning rate {rate:.2g}, {_short(batch)} tokens a step")
    far = [one.law.name for one in answers if one.law.extrapolates(one.best.flops)]
    if far:
        lines.append(f"beyond the budgets of the runs they were fitted to: {', '.join(far)}")
    if known.model is not None and known.model.moe is not None:
        lines.append("experts: laws are of dense models; parameters here are those that a token meets")
    lines.append("loss: nats a token of the law's own data and tokenizer; compare within a law only")
    return lines


def _presets() -> dict[str, float]:
    """Return parameters of the shipped models."""
    from gptdist.config.model import ModelConfig
    from gptdist.config.shipped import shipped_folder
    from gptdist.config.source import read_tree
    from gptdist.model.arithmetic import num_parameters

    folder = shipped_folder() / "models"
    models = {path.stem: ModelConfig.from_tree(read_tree(path)["model"]) for path in sorted(folder.glob("*.yaml"))}
    return {name: float(num_parameters(model)) for name, model in models.items() if model.moe is None}


def _tree(one: "Answer") -> dict[str, Any]:
    """Return an answer as plain data."""

    def numbers(size: "Size") -> dict[str, float]:
        return {"parameters": size.parameters, "tokens": size.tokens, "flops": size.flops}

    return {
        "law": one.law.name,
        "source": one.law.source,
        "counts": one.law.counts,
        "data": one.law.data,
        "extrapolates": one.law.extrapolates(one.best.flops),
        "best": {**numbers(one.best), "loss": one.best_loss},
        "run": None if one.run is None else {**numbers(one.run), "loss": one.loss},
        "same_loss_flops": one.same_loss_flops,
        "wasted": one.wasted,
        "tokens_for_parameters": one.tokens_for_parameters,
    }


def _size(size: "Size") -> list[str]:
    return [_short(size.parameters), _short(size.tokens), f"{size.tokens / size.parameters:.3g}"]


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.3f}"


def _short(number: float) -> str:
    """Return three digits with K, M, B or T."""
    from gptdist.plan.scaling import SUFFIXES

    for suffix, factor in reversed(SUFFIXES.items()):
        if number >= factor:
            return f"{number / factor:.3g}{suffix}"
    return f"{number:.3g}"
