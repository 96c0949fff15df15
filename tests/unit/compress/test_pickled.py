"""Of ``getattr``, with which Python 3.11.2 pickles members of enums, nothing but members of enums is let through."""

import pickle
from enum import Enum
from pathlib import Path

import pytest
import torch

from gptdist.compress.pickled import load_pickled
from gptdist.errors import ModelImportError


class Stage(Enum):
    """Stands for DeepSpeed's."""

    one = 1


class Asks:
    """Pickled as the attribute of something."""

    def __init__(self, owner: object, name: str) -> None:
        self.asked = (owner, name)

    def __reduce__(self) -> tuple:
        return getattr, self.asked


def test_a_member_of_an_enum_is_built(tmp_path: Path) -> None:
    torch.save({"stage": Asks(Stage, "one"), "x": torch.ones(2)}, tmp_path / "x.pt")
    assert load_pickled(tmp_path / "x.pt", [Stage])["stage"] is Stage.one


@pytest.mark.parametrize("asked", [(Stage, "__init_subclass__"), (Stage, "mro"), (torch.Tensor, "numpy"), ("", "join")])
def test_any_other_attribute_is_refused(tmp_path: Path, asked: tuple[object, str]) -> None:
    torch.save({"stage": Asks(*asked)}, tmp_path / "x.pt")
    with pytest.raises(ModelImportError, match=r"cannot be read|could run code"):
        load_pickled(tmp_path / "x.pt", [Stage])


def test_an_enum_that_is_not_listed_is_refused(tmp_path: Path) -> None:
    torch.save({"stage": Asks(Stage, "one")}, tmp_path / "x.pt")
    with pytest.raises(ModelImportError, match=r"holds tests.unit.compress.test_pickled.Stage, which could run code"):
        load_pickled(tmp_path / "x.pt")


def test_pickle_finds_what_it_says() -> None:
    assert pickle.loads(pickle.dumps(Asks(Stage, "one"))) is Stage.one  # noqa: S301 - of this very test
