"""Shapes of a given number of parameters against an enumeration, and what cannot be asked for."""

from collections.abc import Iterator
from typing import Any

import pytest

from gptdist.compress.prune.predict import Curve, Prediction, ranked
from gptdist.compress.prune.search import REACH, Candidate, Layout, SearchOptions, legal_shapes
from gptdist.compress.prune.shape import RequestedShape, Shape
from gptdist.compress.prune.slicing import resized
from gptdist.config.exportable import export_problems
from gptdist.config.layer_shapes import LayerShapes
from gptdist.config.model import ModelConfig
from gptdist.errors import ConfigError
from gptdist.model.arithmetic import num_parameters
from tests.unit.compress.small_models import LLAMA_SWITCHES, SIZES

ALL = ("ffn", "hidden", "heads", "layers")
GPT2 = ModelConfig(**(SIZES | {"num_layers": 3}))
LLAMA = ModelConfig(**(SIZES | LLAMA_SWITCHES | {"num_layers": 3, "ffn_hidden_size": 100}))
MIXTRAL = ModelConfig(**(SIZES | LLAMA_SWITCHES | {"moe": {"num_experts": 3}}))


def sized(config: ModelConfig, shape: Shape) -> ModelConfig:
    return resized(config, shape.layer_shapes(config), shape.hidden or config.hidden_size)


def enumerated(config: ModelConfig, target: int, multiple: int) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Every legal shape along all sizes that has the target's number of parameters."""
    common = config.common_shape
    widths = [*range(multiple, config.hidden_size, multiple), config.hidden_size]
    for layers in range(1, config.num_layers + 1):
        for hidden in widths:
            for groups in range(1, common.groups + 1):
                for heads in range(1, common.heads // common.groups + 1):
                    for ffn in [*range(multiple, common.ffn, multiple), common.ffn]:
                        child = sized(config, Shape(layers, hidden, groups, heads, ffn))
                        count = num_parameters(child)
                        if (1 - REACH) * target <= count <= target and not export_problems(child):
                            yield layers, hidden, groups, heads, ffn, count


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_search_finds_the_widest_of_all_legal_shapes(config: ModelConfig) -> None:
    options = SearchOptions("0.5", axes=ALL)
    target = num_parameters(config) // 2
    widest: dict[tuple[int, ...], tuple[int, int]] = {}
    for *others, ffn, count in enumerated(config, target, 8):
        widest[tuple(others)] = max(widest.get(tuple(others), (0, 0)), (ffn, count))
    found = legal_shapes(config, options, Layout())
    assert {(tuple(vars(one.shape).values())[:4], (one.shape.ffn, one.parameters)) for one in found} == set(
        widest.items()
    )
    assert found[0].parameters == max(one.parameters for one in found) > 0.97 * target
    assert len(found) >= 3


@pytest.mark.parametrize("config", [GPT2, LLAMA, MIXTRAL], ids=["gpt2", "llama", "mixtral"])
def test_counts_are_exact_and_shapes_export(config: ModelConfig) -> None:
    for one in legal_shapes(config, SearchOptions("0.6", multiple_of=4), Layout()):
        child = sized(config, one.shape)
        assert num_parameters(child) == one.parameters
        assert export_problems(child) == []
        assert child.num_layers == config.num_layers


def test_the_runs_layout_stays_possible() -> None:
    found = legal_shapes(LLAMA, SearchOptions("0.6", axes=ALL), Layout(tensor=2, pipeline=3))
    assert found
    for one in found:
        child = sized(LLAMA, one.shape)
        assert (child.query_groups % 2, child.num_attention_heads % 2, child.ffn_size % 2) == (0, 0, 0)
        assert child.num_layers == 3
    assert Layout.of({"parallel": {"tensor_parallel_size": 2, "pipeline_parallel_size": 4}}) == Layout(2, 4)
    assert Layout.of({}) == Layout(1, 1)


def test_a_target_as_a_number_is_never_exceeded() -> None:
    target = num_parameters(LLAMA) * 2 // 3
    found = legal_shapes(LLAMA, SearchOptions(f"{target:,}", axes=("ffn",), multiple_of=1), Layout())
    (one,) = found
    assert one.parameters <= target
    assert num_parameters(sized(LLAMA, Shape(ffn=(one.shape.ffn or 0) + 1))) > target


@pytest.mark.parametrize(
    ("target", "options", "nearest"),
    [
        ("1000", {"axes": ("ffn",)}, Shape(3, 32, 2, 2, 8)),
        ("0.94", {"axes": ("ffn",), "multiple_of": 64}, Shape(3, 32, 2, 2, 64)),
        ("0.8", {"axes": ("heads",)}, Shape(3, 32, 1, 1, 100)),
    ],
)
def test_what_no_shape_reaches_names_the_nearest(target: str, options: dict[str, Any], nearest: Shape) -> None:
    with pytest.raises(ConfigError) as caught:
        legal_shapes(LLAMA, SearchOptions(target, **options), Layout())
    (line,) = caught.value.problems
    assert "no legal shape along" in line
    assert f"the nearest has {num_parameters(sized(LLAMA, nearest)):,} ({nearest})" in line


def test_the_layout_is_named_where_it_is_why() -> None:
    with pytest.raises(ConfigError, match=r"no legal shape along heads, for tensor parallel 2 has that many"):
        legal_shapes(LLAMA, SearchOptions("0.8", axes=("heads",)), Layout(tensor=2))


def test_nothing_legal_is_said_too() -> None:
    with pytest.raises(ConfigError, match="no smaller shape along hidden is legal; name more --axes, or sizes"):
        legal_shapes(GPT2, SearchOptions("0.5", axes=("hidden",)), Layout())  # heads have to go with it


SHAPED = GPT2.model_copy(update={"layer_shapes": (LayerShapes(layers=3, ffn_hidden_size=8),)})
WINDOWED = GPT2.model_copy(update={"local_attention_window": 4})


@pytest.mark.parametrize(
    ("config", "options", "messages"),
    [
        (
            GPT2,
            {"target": "1", "multiple_of": 0, "candidates": 0, "axes": ("ffn", "depth")},
            [
                "--target-parameters: must be a share above 0 and below 1, or a number of parameters, got 1",
                "--multiple-of: must be at least 1, got 0",
                "--candidates: must be at least 1, got 0",
                "--axes: depth is none of ffn, hidden, heads, layers; name some of these",
            ],
        ),
        (GPT2, {"target": "0"}, ["--target-parameters: must be a share above 0 and below 1"]),
        (GPT2, {"target": "half"}, ["--target-parameters: must be a share above 0 and below 1"]),
        (GPT2, {"target": "nan"}, ["--target-parameters: must be a share above 0 and below 1"]),
        (GPT2, {"target": "1.5"}, ["--target-parameters: must be a share above 0 and below 1"]),
        (GPT2, {"target": "900000"}, ["--target-parameters: 900000 is not below the model's 47,264; ask for fewer"]),
        (GPT2, {"target": "0.5", "axes": ()}, ["--axes: names none; name some of ffn, hidden, heads, layers"]),
        (MIXTRAL, {"target": "0.5", "axes": ("ffn",)}, ["--axes: ffn: not done for models with experts; leave it out"]),
        (SHAPED, {"target": "0.5"}, ["--target-parameters: not done where model.layer_shapes differ; name sizes"]),
        (WINDOWED, {"target": "0.5", "axes": ("layers",)}, ["--axes: model.local_attention_window: every second"]),
    ],
)
def test_bad_searches_are_refused(config: ModelConfig, options: dict[str, Any], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        legal_shapes(config, SearchOptions(**options), Layout())
    assert len(caught.value.problems) == len(messages), caught.value.problems
    for problem, message in zip(caught.value.problems, messages, strict=True):
        assert problem.startswith(message)


def test_sizes_become_a_shape() -> None:
    assert RequestedShape(heads=2).shape(GPT2) == Shape(groups=2, heads=1)
    assert RequestedShape(heads=2).shape(LLAMA) == Shape(heads=1)
    assert RequestedShape(query_groups=1).shape(LLAMA) == Shape(groups=1)
    assert RequestedShape(query_groups=1, heads=1).shape(LLAMA) == Shape(groups=1, heads=1)
    assert RequestedShape(layers=2, hidden=16, ffn=50).shape(LLAMA) == Shape(layers=2, hidden=16, ffn=50)
    assert sized(LLAMA, Shape(groups=1)).num_attention_heads == 2


@pytest.mark.parametrize(
    ("config", "sizes", "messages"),
    [
        (LLAMA, {}, ["--layers, --hidden, --heads, --query-groups, --ffn: none is given; name what to cut"]),
        (
            LLAMA,
            {"layers": 4, "hidden": 0, "ffn": 101},
            [
                "--layers: must be from 1 to 3, which the model has, got 4",
                "--hidden: must be from 1 to 32, which the model has, got 0",
                "--ffn: must be from 1 to 100, which the model has, got 101",
            ],
        ),
        (LLAMA, {"heads": 3}, ["--heads (3): must be as many in each of 2 query groups; use one of [2, 4]"]),
        (LLAMA, {"heads": 4, "query_groups": 1}, ["--heads (4): 1 query groups have 2 heads each; use at most 2"]),
        (LLAMA, {"ffn": 100, "heads": 4}, ["heads a group 2, ffn 100: is what the model has, so that nothing is cut"]),
        (SHAPED, {"heads": 2}, ["--heads, --query-groups: not done where model.layer_shapes differ; cut other sizes"]),
        (MIXTRAL, {"ffn": 8}, ["--ffn: not done for models with experts; cut other sizes"]),
        (WINDOWED, {"layers": 1}, ["model.local_attention_window: every second layer has it"]),
    ],
)
def test_bad_sizes_are_refused(config: ModelConfig, sizes: dict[str, int], messages: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        RequestedShape(**sizes).shape(config)
    assert len(caught.value.problems) == len(messages), caught.value.problems
    for problem, message in zip(caught.value.problems, messages, strict=True):
        assert problem.startswith(message)


def test_increases_of_each_size_are_added_up() -> None:
    def loss_of(shape: Shape) -> float:
        """Losses that really are a sum over sizes, bent in the middle of each."""
        hidden = 32 - (shape.hidden or 32)
        return 2.0 + 0.01 * hidden + 0.001 * hidden**2 + 0.005 * (100 - (shape.ffn or 100))

    prediction = Prediction.measured(LLAMA, ("ffn", "hidden"), loss_of)
    assert prediction.loss == 2.0
    assert set(prediction.curves) == {"ffn", "hidden"}
    for shape in (Shape(hidden=16, ffn=75), Shape(hidden=24), Shape(ffn=10)):
        assert prediction.of(shape) == pytest.approx(loss_of(shape))
    between = prediction.of(Shape(hidden=20))
    assert loss_of(Shape(hidden=24)) < between < loss_of(Shape(hidden=16))
    assert Curve((0.5, 1.0), (1.0, 0.0)).at(0.25) == 1.5


def test_measured_losses_decide_among_the_best_predictions() -> None:
    candidates = [Candidate(Shape(hidden=width), width) for width in (8, 16, 24)]
    prediction = Prediction(1.0, Shape.of(LLAMA), {"hidden": Curve((0.25, 1.0), (3.0, 0.0))})
    measured: list[int | None] = []

    def loss_of(shape: Shape) -> float:
        measured.append(shape.hidden)
        return {8: 1.0, 16: 2.0, 24: 3.0}[shape.hidden or 0]

    two = ranked(candidates, prediction, loss_of, 2)
    assert [(one.candidate.parameters, one.measured) for one in two] == [(16, 2.0), (24, 3.0)]
    assert measured == [24, 16]
    (alone,) = ranked(candidates, prediction, loss_of, 1)
    assert (alone.candidate.parameters, alone.measured) == (24, None)
