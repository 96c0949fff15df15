"""Ranks and places are one-to-one, tensor-parallel ranks neighbours."""

import pytest

from gptdist.config.parallel import ParallelConfig
from gptdist.mesh.layout import Layout, Place


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (2, 1, 3, 1), (2, 2, 2, 2), (4, 1, 2, 3)])
def test_rank_and_place_are_one_to_one(sizes: tuple[int, int, int, int]) -> None:
    layout = Layout(*sizes)
    places = [layout.place(rank) for rank in range(layout.world_size)]
    assert len(set(places)) == layout.world_size
    assert [layout.rank(place) for place in places] == list(range(layout.world_size))


def test_tensor_parallel_ranks_are_neighbours() -> None:
    layout = Layout.of(ParallelConfig(tensor_parallel_size=2), world_size=6)
    assert layout.data_parallel_size == 3
    assert layout.place(5) == Place(tp_rank=1, cp_rank=0, dp_rank=2, pp_rank=0)
    assert str(layout) == "6 ranks = data 3 x tensor 2"


def test_a_rank_outside_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="rank 2 of 2"):
        Layout(2, 1, 1, 1).place(2)
