"""Keep the libraries beneath a command from writing between its lines."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def hidden_libraries() -> Iterator[None]:
    """Hide warnings, progress bars, and what DeepSpeed says when transformers looks whether it is there.

    To be entered before any of them is imported.
    """
    bars, level = os.environ.get("TQDM_DISABLE"), logging.root.manager.disable
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        os.environ.pop("TQDM_DISABLE")
        if bars is not None:
            os.environ["TQDM_DISABLE"] = bars
