"""Hand a manifest to Kubernetes."""

import shutil
import subprocess

from gptdist.errors import LaunchError


def apply(manifest: str, namespace: str | None) -> str:
    """Apply ``manifest`` and return what kubectl says of it.

    Raises:
        LaunchError: kubectl is not installed, or Kubernetes refuses.
    """
    if shutil.which("kubectl") is None:
        raise LaunchError(["kubectl: is not installed here; install it, or take --output and apply the file elsewhere"])
    argv = ["kubectl", "apply", *([] if namespace is None else [f"--namespace={namespace}"]), "--filename=-"]
    done = subprocess.run(argv, input=manifest, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise LaunchError([f"kubectl apply: {line}" for line in lines])
    return done.stdout.strip()
