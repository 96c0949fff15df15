"""Work of rank 0 that may take longer than a collective may."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from gptdist.mesh.groups import Mesh, max_over_ranks

ResultT = TypeVar("ResultT")

PAUSE_SECONDS = 1.0


def while_lead_works(work: Callable[[], ResultT], mesh: Mesh) -> ResultT | None:
    """Return on rank 0 what ``work`` returns there, and None on the others, once it is done.

    Collective: every rank calls it. **Communication**: one number over all ranks every second, so that none of them
    gives up. An exception of ``work`` is raised on rank 0 when the others are free to go.
    """
    if not mesh.is_lead:
        while max_over_ranks(0) == 0:
            pass
        return None
    with ThreadPoolExecutor(1, thread_name_prefix="work of rank 0") as pool:
        future = pool.submit(work)
        while not wait([future], timeout=PAUSE_SECONDS).done:
            max_over_ranks(0)
        max_over_ranks(1)
        return future.result()
