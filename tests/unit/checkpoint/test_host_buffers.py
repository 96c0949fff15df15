"""A copy of what is saved holds each value, however the tensors lie in memory."""

import pytest
import torch

from gptdist.checkpoint.host_buffers import HostBuffers


def _values() -> dict[str, torch.Tensor]:
    """Return views that lie one behind the other, with gaps, by turns with those of another state, and alone."""
    flat, moments = torch.randn(100), torch.randn(60).bfloat16()
    return {
        "weight/first": flat[:25],
        "exp_avg/first": moments[:20],
        "weight/second": flat[25:40],
        "exp_avg/second": moments[20:],
        "weight/behind": flat[40:70],
        "weight/after a gap": flat[80:100],
        "weight/alone": torch.randn(7),
        "weight/parameter": torch.nn.Parameter(torch.randn(5)),
    }


def _buffers(values: dict[str, torch.Tensor]) -> HostBuffers:
    return HostBuffers({key: value.numel() for key, value in values.items()}, torch.device("cpu"))


@pytest.mark.parametrize("stay", [True, False])
def test_every_value_is_copied_each_time(stay: bool) -> None:
    values = _values()
    buffers = _buffers(values)
    for _ in range(2):
        copies = buffers.copy(values.items(), stay=stay)
        assert list(copies) == list(values), "in this order they are written"
        for key, value in values.items():
            assert torch.equal(copies[key], value.detach().float()), key
        before = {key: copy.clone() for key, copy in copies.items()}
        with torch.no_grad():
            for value in values.values():
                value.add_(1)
        assert all(torch.equal(copies[key], before[key]) for key in values), "a copy is no view"


def test_long_runs_are_copied_in_one_go() -> None:
    values = _values()
    buffers = _buffers(values)
    sizes = [source.numel() for source, _ in buffers._runs([values[key].detach() for key in buffers._order])]
    assert sorted(sizes) == [5, 7, 20, 60, 70]


def test_tensors_that_have_moved() -> None:
    buffers = _buffers(_values())
    moved = {key: value.detach().clone() for key, value in _values().items()}
    copies = buffers.copy(moved.items(), stay=True)
    assert all(torch.equal(copies[key], value.float()) for key, value in moved.items())


def test_values_that_go_are_copied_at_once() -> None:
    values = _values()

    def one_at_a_time():
        for key, value in values.items():
            there = value.detach().clone()
            yield key, there
            there.zero_()

    copies = _buffers(values).copy(one_at_a_time(), stay=False)
    assert all(torch.equal(copies[key], value.float()) for key, value in values.items())


def test_other_tensors_than_before() -> None:
    values = _values()
    buffers = _buffers(values)
    values.pop("weight/alone")
    with pytest.raises(AssertionError, match=r"other tensors than before: \['weight/alone'\]"):
        buffers.copy(values.items(), stay=True)
