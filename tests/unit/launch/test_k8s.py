"""Manifests for Kubernetes: golden files, held against the published schemas; what is refused before."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from gptdist.cli.main import main
from gptdist.config.load import load_config
from gptdist.config.run import RunConfig
from launch.k8s_options import legal_name, longest_name
from tests.support.golden import check_golden
from tests.support.k8s_schemas import schema_problems
from tests.support.ranks import repository

DEMO = "configs/runs/demo-cpu.yaml"
BASE = [DEMO, "--nodes=2", "--image=registry.example/gptdist:1", "--volume=shared:/work", "--dry-run"]
KINDS = ("jobset", "trainjob", "job")


@pytest.fixture(autouse=True)
def _in_repository(monkeypatch) -> None:
    monkeypatch.chdir(repository())


def _rendered(capsys, *words: str) -> list[dict[str, Any]]:
    assert main(["launch", "k8s", *BASE, "batch.global_batch_size=32", *words]) == 0
    return list(YAML(typ="safe", pure=True).load_all(capsys.readouterr().out))


def _pod(documents: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the spec of the pods."""
    spec = next(one for one in documents if one["kind"] in {"Job", "JobSet", "TrainingRuntime"})["spec"]
    spec = spec["template"]["spec"] if "mlPolicy" in spec else spec
    if "replicatedJobs" in spec:
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    return spec["template"]["spec"]


def _environment(documents: list[dict[str, Any]]) -> dict[str, Any]:
    return {one["name"]: one.get("value") for one in _pod(documents)["containers"][0]["env"]}


@pytest.mark.parametrize("kind", KINDS)
def test_manifest_word_for_word(kind: str, capsys) -> None:
    words = ["--gpus=8", "--memory=512Gi", "--namespace=team-a", "--env=NCCL_DEBUG=WARN", "--volume=data.v2:/data"]
    assert main(["launch", "k8s", *BASE, "batch.global_batch_size=32", f"--kind={kind}", *words]) == 0
    check_golden(f"k8s_{kind}.yaml", capsys.readouterr().out)


@pytest.mark.parametrize("kind", KINDS)
def test_manifests_are_as_the_schemas_say(kind: str, capsys) -> None:
    for words in ((), ("--gpus=8", "--gpu-resource=amd.com/gpu", "--cpus=3.5", "--env=A=b c")):
        for document in _rendered(capsys, f"--kind={kind}", *words):
            assert schema_problems(document) == []


@pytest.mark.parametrize(
    ("kind", "break_it", "found"),
    [
        ("job", lambda pod, one: pod.update(subdomian="x"), "subdomian: unknown"),
        ("job", lambda pod, one: pod.update(terminationGracePeriodSeconds="90"), "valid integer"),
        ("jobset", lambda pod, one: pod.update(restartPolicy="Sometimes"), "must be one of enum values"),
        ("jobset", lambda pod, one: pod["containers"][0]["command"].append(3), "valid string"),
        ("jobset", lambda pod, one: one["spec"]["failurePolicy"]["rules"][0].pop("action"), "action: missing"),
        ("job", lambda pod, one: pod["containers"][0].pop("name"), "containers[0].name: missing"),
        ("jobset", lambda pod, one: one["spec"]["failurePolicy"].update(maxRestart=3), "maxRestart: unknown"),
        ("trainjob", lambda pod, one: one["spec"]["mlPolicy"].update(numNode=2), "mlPolicy.numNode: unknown"),
        ("trainjob", lambda pod, one: pod["volumes"][0]["configMap"].update(defaultMode="420"), "valid integer"),
    ],
)
def test_a_broken_manifest_is_found(kind: str, break_it: Callable[..., Any], found: str, capsys) -> None:
    documents = copy.deepcopy(_rendered(capsys, f"--kind={kind}"))
    assert all(schema_problems(document) == [] for document in documents)
    break_it(_pod(documents), next(one for one in documents if one["kind"] in {"Job", "JobSet", "TrainingRuntime"}))
    problems = [problem for document in documents for problem in schema_problems(document)]
    assert any(found in problem for problem in problems), problems


@pytest.mark.parametrize("kind", KINDS)
def test_pods_run_the_resolved_config(kind: str, capsys, tmp_path: Path) -> None:
    documents = _rendered(capsys, f"--kind={kind}", "seed=77")
    path = tmp_path / "run.yaml"
    path.write_text(documents[0]["data"]["run.yaml"])
    expected = load_config(RunConfig, Path(DEMO), ["batch.global_batch_size=32", "seed=77"])
    assert load_config(RunConfig, path) == expected
    container = _pod(documents)["containers"][0]
    assert container["command"][:3] == ["python3", "-m", "launch.agent"], "no shell between the kubelet and the agent"
    assert container["command"][-1] == "/etc/gptdist/run.yaml"
    assert sys.executable not in container["command"]
    assert "args" not in container


def test_what_is_a_command_for_kubernetes_stays_text(capsys) -> None:
    documents = _rendered(capsys, "--env=A=$(PET_NODE_RANK) $$(id) $", "run_dir=runs/$(HOSTNAME)")
    environment = _environment(documents)
    assert environment["A"] == "$$(PET_NODE_RANK) $$$$(id) $$"
    assert environment["GPTDIST_LOG_DIR"] == "/work/runs/$$(HOSTNAME)/logs/launch_$(GPTDIST_JOB_UID)"
    assert "run_dir: runs/$(HOSTNAME)" in documents[0]["data"]["run.yaml"], "files are not expanded"


def test_each_attempt_of_a_plain_job_has_its_logs(capsys) -> None:
    environment = _environment(_rendered(capsys, "--kind=job"))
    names = list(environment)
    assert environment["GPTDIST_LOG_DIR"].endswith("$(GPTDIST_JOB_UID)_$(GPTDIST_FAILURES)_$(GPTDIST_REQUEUES)")
    assert names.index("GPTDIST_LOG_DIR") > names.index("GPTDIST_REQUEUES"), "only what stands before is expanded"


def test_gpus_follow_from_the_config(capsys) -> None:
    assert _pod(_rendered(capsys, "training.device=cpu"))["containers"][0]["resources"] == {}
    resources = _pod(_rendered(capsys))["containers"][0]["resources"]
    assert resources["limits"] == {"nvidia.com/gpu": "2"}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--name=My $(run)"], "--name: 'My $(run)' is no DNS-1123 label of up to 48 characters; use 'my-run'"),
        (["--name=" + "a" * 70], "use '" + "a" * 48 + "'"),
        (["--namespace=Team_A"], "--namespace: 'Team_A' is no DNS-1123 label; use 'team-a'"),
        (["--image=a b"], "--image: must be a name of an image, got 'a b'"),
        (["--volume=Other:/data"], "--volume Other:/data: 'Other' is no name of a claim; use 'other'"),
        (["--volume=other:data"], "--volume other:data: must be mounted at an absolute path other than /, got 'data'"),
        (["--volume=other"], "--volume other:: must be mounted at an absolute path other than /, got ''"),
        (["--volume=other:/work"], "--volume other:/work: another volume is mounted there too; choose another path"),
        (["--working-dir=/tmp"], "run_dir: /tmp/runs/demo-cpu is on no volume (/work), and would go with its pods; "),
        (["--working-dir=here"], "--working-dir: must be an absolute path in the pods, got 'here'"),
        (["--cpus=many"], "--cpus: must be a quantity such as 8 or 64Gi, got 'many'"),
        (["--env=A B=c"], "--env: 'A B' is no name of a variable; give NAME=VALUE"),
        (["--gpus=-1"], "--gpus: must be at least 0, got -1"),
        (["--port=0"], "--port: must be from 1 to 65535, got 0"),
        (["--nodes=0"], "--nodes: must be at least 1, got 0"),
        (["--nodes=3"], "batch.global_batch_size (32) is no multiple of"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], problem: str, capsys) -> None:
    assert main(["launch", "k8s", *BASE, "batch.global_batch_size=32", *words]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert problem in shown[0]
    assert len(shown) == 1 or "working-dir" not in words[0]


def test_no_volume_is_refused(capsys) -> None:
    words = [word for word in BASE if not word.startswith("--volume")]
    assert main(["launch", "k8s", *words, "batch.global_batch_size=32"]) == 2
    assert "--volume: none is given, and the run's folder would go with its pods" in capsys.readouterr().err


def test_names_of_runs_become_legal() -> None:
    assert legal_name("GPT_3.5 Turbo!") == "gpt-3-5-turbo"
    assert legal_name("...") == "gptdist"
    assert legal_name("a" * 47 + "-b", 48) == "a" * 47
    assert longest_name("job", 10) == longest_name("job", 1) == 55
    assert longest_name("jobset", 11) == 47


def test_output_goes_to_a_file_and_kubectl_gets_the_rest(capsys, tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "m.yaml"
    words = [word for word in BASE if word != "--dry-run"] + ["batch.global_batch_size=32"]
    assert main(["launch", "k8s", *words, f"--output={path}"]) == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["launch", "k8s", *words]) == 2
    assert "kubectl: is not installed here; install it, or take --output" in capsys.readouterr().err
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(f'#!/bin/sh\necho "$@"\n/bin/cat > {tmp_path}/applied\n')
    kubectl.chmod(0o755)
    assert main(["launch", "k8s", *words, "--namespace=team-a"]) == 0
    assert capsys.readouterr().out == "apply --namespace=team-a --filename=-\n"
    assert (tmp_path / "applied").read_text().replace("  namespace: team-a\n", "") == path.read_text()
    kubectl.write_text("#!/bin/sh\necho 'error: no cluster' >&2\nexit 1\n")
    assert main(["launch", "k8s", *words]) == 2
    assert "gptdist launch: error: kubectl apply: error: no cluster" in capsys.readouterr().err
