"""A copy of a run's checkpoints in a store elsewhere."""

import importlib.util
import re

from gptdist.config.retention import KeepConfig
from gptdist.config.section import Section

_EXTRAS = {"s3": ("s3fs", "s3"), "gs": ("gcsfs", "gcs")}
"""Package that opens a protocol, and the extra of this one that brings it."""

_KNOWN = ("s3", "gs", "file")


class RemoteConfig(Section):
    """Where checkpoints are copied to in the background, and fetched from where this machine has none or older ones."""

    url: str
    """Folder for the checkpoints of runs, such as ``s3://bucket/runs``: those of this run are in ``<url>/<name>``.
    Credentials and endpoints are taken from the environment, as the store's own tools do."""

    keep: KeepConfig = KeepConfig()
    """Which of the copies stay; without a rule all of them."""

    upload_attempts: int = 6
    """How often an upload is tried; then a warning tells of it, and the next checkpoint is tried anew."""

    retry_seconds: float = 1.0
    """How long after the first failure it is tried again; twice as long after each further one."""

    upload_timeout_seconds: float = 600.0
    """How long the end of the run waits for the last upload."""

    def problems(self, where: str, *, save_steps: int, eval_steps: int, train_steps: int) -> list[str]:
        """Return every value out of its range, and what is wrong with the URL; asks no network.

        Args:
            where: config path of the section.
            save_steps: the run's interval of checkpoints.
            eval_steps: its interval of validations.
            train_steps: its length.
        """
        bad = [f"{where}.url: {problem}" for problem in _url_problems(self.url)]
        if self.upload_attempts < 1:
            bad.append(f"{where}.upload_attempts: must be at least 1, got {self.upload_attempts}")
        bad += [
            f"{where}.{name}: must be above 0, got {getattr(self, name)}"
            for name in ("retry_seconds", "upload_timeout_seconds")
            if getattr(self, name) <= 0.0
        ]
        return bad + self.keep.problems(
            f"{where}.keep", save_steps=save_steps, eval_steps=eval_steps, train_steps=train_steps
        )

    def package_problems(self, where: str) -> list[str]:
        """Return what is asked for and not installed on this machine."""
        package, extra = _EXTRAS.get(self.url.partition("://")[0], ("fsspec", ""))
        if importlib.util.find_spec(package) is not None:
            return []
        return [f"{where}.url: the package {package} is not installed; pip install 'gptdist[{extra}]', or leave it out"]


def _url_problems(url: str) -> list[str]:
    """Return what is wrong; a URL that may hold a secret is not shown."""
    protocol, separator, rest = url.partition("://")
    if not separator or protocol not in _KNOWN:
        known = ", ".join(f"{name}://" for name in _KNOWN)
        shown = f"'{protocol}://…'" if separator else "no protocol"
        return [f"must begin with one of {known}, got {shown}; name a folder that outlives the run"]
    if "@" in rest:
        return ["holds what may be credentials ('@'), and would end up in files; set them in the environment instead"]
    if not re.fullmatch(r"[\w./ =+-]+", rest):
        return [
            f"'{url}' holds other characters than letters, digits, '_', '-', '.', '=', '+' and '/'; rename the folder"
        ]
    if protocol == "file" and not rest.startswith("/"):
        return [f"'{url}' is not an absolute path; write file:///… with three slashes"]
    parts = rest.removeprefix("/" if protocol == "file" else "").removesuffix("/").split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return [f"'{url}' names no folder, or has an empty part, '.' or '..'; write it out, such as s3://bucket/runs"]
    return []
