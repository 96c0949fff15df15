"""Figures of ``benchmarks.checkpoint``: what was measured, and the comparisons that are made of it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from benchmarks.comparison import Against, Comparison

PEERS = {"deepspeed": "DeepSpeed", "dcp": "torch.distributed.checkpoint"}


@dataclass
class Seconds:
    """What was measured, by name, a value for each round."""

    of: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def beside(
        self, name: str, sides: tuple[str, str], peer: str, target: float | None = None, *, against: Against = "tool"
    ) -> Comparison:
        """Return the seconds of ``sides``, ours first."""
        ours, theirs = (self.of[side] for side in sides)
        return Comparison(name, peer, "s", ours, theirs, "lower", target, against)


def same_layout(
    seconds: Seconds, sizes: Mapping[str, int], facts: Mapping[str, Any], first_stall: float, ranks: int
) -> list[Comparison]:
    """Return the comparisons of saving and loading on one layout."""
    on = f", {ranks} rank{'s' * (ranks > 1)}"
    found = [
        _bytes(f"bytes{on}", "parameters x 12", sizes["save"], 12 * facts["parameters"], target=1.02),
        Comparison(
            f"stall of an asynchronous save{on}",
            "synchronous save",
            "s",
            seconds.of["stall"],
            seconds.of["save"],
            "lower",
            0.1,
            "ourselves",
            note=f"the first one allocates its buffers: {first_stall:.3f} s",
        ),
        _rate_of_saving(seconds, sizes, ranks),
    ]
    for state in ("cold", "warm"):
        read = f"read {state}"
        for what, way, target in (("load", "load", 1.2), ("hashes compared and loaded", "resume", None)):
            name = f"{what}, {state}{on}"
            found.append(seconds.beside(name, (f"{way} {state}", read), "plain read", target, against="yardstick"))
    return found + _beside_tools(seconds, sizes, on)


def _beside_tools(seconds: Seconds, sizes: Mapping[str, int], on: str) -> list[Comparison]:
    ways = (
        ("save, synchronous, on the disk", "save", "{}_save"),
        ("stall of an asynchronous save", "stall", "{}_stall"),
        ("asynchronous save until it is on the disk", "save_async", "{}_save_async"),
        ("load, cold", "load cold", "{}_load cold"),
        ("load, warm", "load warm", "{}_load warm"),
    )
    found = []
    for peer, title in PEERS.items():
        for name, ours, pattern in ways:
            theirs = pattern.format(peer)
            if theirs in seconds.of:  # DeepSpeed saves synchronously
                found.append(seconds.beside(name + on, (ours, theirs), title))
        found.append(_bytes(f"bytes{on}", title, sizes["save"], sizes[f"{peer}_save"], against="tool"))
    cached = f"DeepSpeed left it in the page cache after {median(seconds.of['deepspeed_cached']):.3f} s"
    return [Comparison(**vars(one) | {"note": cached}) if one.name.startswith("save") else one for one in found]


def _bytes(
    name: str, peer: str, ours: float, theirs: float, *, target: float | None = None, against: Against = "yardstick"
) -> Comparison:
    return Comparison(name, peer, "MB", [ours / 1e6], [theirs / 1e6], "lower", target, against)


def _rate_of_saving(seconds: Seconds, sizes: Mapping[str, int], ranks: int) -> Comparison:
    rates = {way: [sizes[way] / 1e6 / taken for taken in seconds.of[way]] for way in ("save", "dd")}
    peer = f"dd conv=fsync of the same files{', both at once' * (ranks > 1)}"
    name = f"rate of saving, {ranks} rank{'s' * (ranks > 1)}"
    return Comparison(name, peer, "MB/s", rates["save"], rates["dd"], "higher", 0.8, "yardstick")


def other_layouts(seconds: Seconds, titles: Sequence[str]) -> list[Comparison]:
    """Return the comparisons of loading what two ranks of ZeRO-1 have saved into other layouts."""
    found = []
    for title in titles:
        for state in ("cold", "warm"):
            sides = (f"{title} load {state}", f"{title} read {state}")
            name = f"load of 2 ranks into {title}, {state}"
            found.append(seconds.beside(name, sides, "plain read", 2.0, against="yardstick"))
    seconds.of["universal"] = [
        sum(pair) for pair in zip(seconds.of["convert"], seconds.of["deepspeed_load warm"], strict=True)
    ]
    ours = "one rank load warm"
    for theirs, peer in (
        ("universal", "DeepSpeed: conversion to universal, and load"),
        ("dcp_load warm", "torch.distributed.checkpoint, flat groups of ZeRO (no tensor parallelism)"),
    ):
        found.append(seconds.beside("load of 2 ranks into one, warm", (ours, theirs), peer))
    return found


def memory(what: str, extra_bytes: float, allowed_bytes: float) -> Comparison:
    """Return host memory beyond what the run holds beside what it may be."""
    return _bytes(f"host memory, {what}", "what is promised", extra_bytes, allowed_bytes, target=1.0)
