"""A plan as lines of text: every number with its unit, and how it comes about."""

from gptdist.config.run import RunConfig
from gptdist.model.arithmetic import num_active_parameters, num_parameters
from gptdist.plan.constants import MEMORY_BAND, TIME_BAND
from gptdist.plan.projection import Projection
from gptdist.plan.rank_memory import COMPONENTS, RankMemory
from gptdist.plan.search import Found, override_line

GIB = 2**30
TOKEN_BYTES = 4
"""Of a token in a shard, at most."""

SMALLEST_SHARE = 0.0005
"""Of a step; parts below it are left out."""


def plan_lines(plan: Projection, *, price: float | None) -> list[str]:
    """Return the whole plan.

    Args:
        plan: what to show.
        price: of a device for an hour, if known.
    """
    return [
        *_heading(plan),
        "",
        *_memory(plan),
        "",
        *_time(plan),
        "",
        *_run(plan, price),
    ]


def _heading(plan: Projection) -> list[str]:
    model, active = num_parameters(plan.config.model), num_active_parameters(plan.config.model)
    experts = f", of which a token meets {active:,}" if active != model else ""
    cluster, workload = plan.cluster, plan.workload
    network = "" if cluster.network is None else f", {cluster.network.name} between nodes"
    return [
        f"model      {model:,} parameters{experts}",
        f"cluster    {cluster.num_nodes} x {cluster.ranks_per_node} {cluster.device.name}{network}",
        f"layout     {plan.layout}, ZeRO {workload.zero_stage}, {workload.precision}, micro batches of "
        f"{workload.micro_batch_size}, {workload.num_micro_batches} a step; {workload.step_tokens:,} tokens a step",
    ]


def _memory(plan: Projection) -> list[str]:
    stages = {stage.stage: stage for stage in (plan.memory[0], plan.peak, plan.memory[-1])}
    shown = [name for name in COMPONENTS if any(getattr(stage, name) for stage in plan.memory)]
    widths = [max(len(name), 8) for name in shown]
    titles = "  ".join(name.rjust(width) for name, width in zip(shown, widths, strict=True))
    lines = [f"memory of a rank in GiB (2^30 bytes), where a step needs most\n  stage  {titles}     total  at"]
    lines += [_stage_line(stages[number], shown, widths) for number in sorted(stages)]
    total, capacity = plan.peak.total, plan.capacity
    lines.append(
        f"{plan.verdict}: {total / GIB:.1f} of {capacity / GIB:.1f} GiB; with the error of {MEMORY_BAND:.0%} that nine "
        f"of ten published runs keep to: {total * (1 - MEMORY_BAND) / GIB:.1f} to {total * (1 + MEMORY_BAND) / GIB:.1f}"
    )
    host = plan.cluster.device.host_memory_bytes / GIB
    if plan.offloaded_bytes:
        lines.append(
            f"main memory of a node: {plan.offloaded_bytes / GIB:,.1f} of {host:,.0f} GiB for what is offloaded"
        )
    if plan.buffer_bytes:
        lines.append(f"main memory of a node: {plan.buffer_bytes / GIB:,.1f} of {host:,.0f} GiB for buffers of saves")
    elif plan.config.checkpoints.asynchronous:
        lines.append("main memory of a node: too little for buffers of saves, so training waits for each")
    return lines


def _stage_line(stage: RankMemory, shown: list[str], widths: list[int]) -> str:
    values = [f"{getattr(stage, name) / GIB:.2f}".rjust(width) for name, width in zip(shown, widths, strict=True)]
    return f"  {stage.stage:5}  {'  '.join(values)}  {stage.total / GIB:8.2f}  {stage.moment}"


def _time(plan: Projection) -> list[str]:
    total = plan.time.total
    lines = [f"time of a step {total:.3f} s (within {TIME_BAND:.0%} for nine of ten published runs)"]
    for name, seconds in sorted(plan.time.tree().items(), key=lambda part: -part[1]):
        if seconds > SMALLEST_SHARE * total:
            lines.append(f"  {name.replace('_', ' '):18} {seconds:9.3f} s {seconds / total:6.1%}")
    return lines


def _run(plan: Projection, price: float | None) -> list[str]:
    per_rank = plan.tokens_per_second / plan.layout.world_size
    cost = f"{plan.device_hours * price:,.0f} at {price:g} a device-hour" if price is not None else "see --price"
    saves, read = plan.config.intervals.save_steps, TOKEN_BYTES * plan.tokens_per_second / plan.cluster.num_nodes
    return [
        f"throughput {plan.tokens_per_second:,.0f} tokens/s, {per_rank:,.0f} a rank; model "
        f"{plan.model_flops / 1e12:,.1f} TFLOP/s a rank",
        f"           MFU {plan.mfu:.3f} (model FLOP/s over peak), HFU {plan.hfu:.3f} (with what is computed again)",
        f"data       {read / 1e6:,.2f} MB/s a node are read, in the background ({TOKEN_BYTES} bytes a token)",
        f"run        {plan.train_tokens:,} tokens in {plan.days:,.2f} days, {plan.device_hours:,.0f} device-hours",
        "           without validation, failures and restarts",
        f"energy     {plan.kilowatt_hours:,.0f} kWh of the devices at full power, nothing else of the nodes",
        f"cost       {cost}",
        f"checkpoint {plan.checkpoint_bytes / GIB:,.1f} GiB every {saves} steps, written in "
        f"{plan.checkpoint_seconds:,.0f} s at {plan.cluster.device.storage_bandwidth / 1e9:g} GB/s a node",
    ]


def search_lines(found: Found, config: RunConfig, asked: Projection | None) -> list[str]:
    """Return the fastest layouts as a table, each with the line that sets it.

    Args:
        found: of the search.
        config: that was asked for.
        asked: its own plan, if it is legal.
    """
    if not found.best:
        assert found.leanest is not None, "neither a best nor a leanest one"
        lean = found.leanest
        return [
            f"none of {found.num_legal:,} legal layouts fits; the leanest needs {lean.peak.total / GIB:.1f} of "
            f"{lean.capacity / GIB:.1f} GiB: {lean.layout}, ZeRO {lean.workload.zero_stage}; use more nodes, or a "
            f"device with more memory"
        ]
    lines = [
        f"the fastest of {found.num_legal:,} legal layouts that fit, one a way to split the ranks",
        "    tokens/s    step s    MFU   GiB a rank           override",
    ]
    for plan in found.best:
        lines.append(
            f"  {plan.tokens_per_second:10,.0f} {plan.time.total:9.3f}  {plan.mfu:.3f}  {plan.peak.total / GIB:7.1f} "
            f"{plan.verdict:9}  {override_line(plan.config, config)}"
        )
    if asked is not None:
        lines.append(f"as configured: {asked.tokens_per_second:,.0f} tokens/s, {asked.verdict}")
    return lines
