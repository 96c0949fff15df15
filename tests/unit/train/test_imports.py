"""The collector is off while a rank imports, and on again when it trains."""

import gc

import pytest

from gptdist.train.__main__ import uncollected


def fail_to_import() -> None:
    with uncollected():
        assert not gc.isenabled()
        raise ImportError("of this name")


def test_collector_is_off_within_and_on_behind_even_where_an_import_fails() -> None:
    try:
        with pytest.raises(ImportError, match="of this name"):
            fail_to_import()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 0, "what was there is not walked through"
    finally:
        gc.enable()
        gc.unfreeze()
