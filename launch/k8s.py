"""A run as objects of Kubernetes: a JobSet, a TrainJob of Kubeflow, or a Job.

One pod a node, each with one agent, which starts the ranks; exit statuses of the agent decide what is restarted. Pure:
plain data in, plain data out.
"""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.scalarstring import LiteralScalarString

from gptdist.config.run import RunConfig
from gptdist.errors import EXIT_REQUEUE, EXIT_STOPPED, EXIT_USER_ERROR
from gptdist.telemetry.heartbeat import HEARTBEAT_DIR
from gptdist.telemetry.rank_log import LOG_DIR
from launch.job import LOGS_NAME, Job, Rendezvous, agent_command, torchrun_command
from launch.k8s_options import ClusterOptions

NODE = "node"
"""Name of the replicated job and its container; Kubeflow Trainer asks for this one."""

CONFIG_FOLDER, CONFIG_FILE = "/etc/gptdist", "run.yaml"
HEARTBEATS = "/tmp/gptdist"
"""On each pod's own disk."""

GRACE_SECONDS = 30
"""Between the end of the ranks' time to save and the kubelet's SIGKILL."""

Document = dict[str, Any]


def documents(config: RunConfig, options: ClusterOptions) -> list[Document]:
    """Return what to apply, in order.

    Args:
        config: the resolved config; the pods get it as a file, so that they need no other.
        options: as the command's options say.
    """
    made = {"jobset": _jobset_documents, "trainjob": _trainjob_documents, "job": _job_documents}[options.kind]
    return [_config_map(config, options), *made(config, options)]


def to_yaml(found: Sequence[Document]) -> str:
    """Return ``found`` as one file."""
    yaml, text = YAML(pure=True), io.StringIO()
    yaml.default_flow_style = False
    yaml.width = 10_000
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.explicit_start = True
    yaml.dump_all(found, text)
    return text.getvalue()


def _metadata(options: ClusterOptions, **more: Any) -> Document:
    metadata = {"name": options.name, "labels": {"app.kubernetes.io/name": "gptdist"}, **more}
    return metadata if options.namespace is None else {**metadata, "namespace": options.namespace}


def _config_map(config: RunConfig, options: ClusterOptions) -> Document:
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(config.tree(), text)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(options),
        "data": {CONFIG_FILE: LiteralScalarString(text.getvalue())},
    }


def _jobset_documents(config: RunConfig, options: ClusterOptions) -> list[Document]:
    return [
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": _metadata(options),
            "spec": _jobset_spec(config, options, job_labels={}),
        }
    ]


def _trainjob_documents(config: RunConfig, options: ClusterOptions) -> list[Document]:
    runtime = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": _metadata(options),
        "spec": {
            # Not its policy for torch, which would say a second time what the agent's command says.
            "mlPolicy": {"numNodes": options.nodes},
            "template": {
                "spec": _jobset_spec(
                    config, options, job_labels={"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
                )
            },
        },
    }
    job = {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": _metadata(options),
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": options.name},
            "trainer": {"numNodes": options.nodes},
        },
    }
    return [runtime, job]


def _jobset_spec(config: RunConfig, options: ClusterOptions, *, job_labels: Mapping[str, str]) -> Document:
    """Return a set of one job, that is begun anew as a whole."""

    def rule(name: str, action: str, *indexes: int) -> Document:
        # Which rule of the job's policy has matched is said in its message only (Kubernetes KEP 3329, JobSet KEP 262).
        patterns = [f"matching FailJob rule at index {index}$" for index in indexes]
        return {
            "name": name,
            "action": action,
            "onJobFailureReasons": ["PodFailurePolicy"],
            "onJobFailureMessagePatterns": patterns,
        }

    job = {
        **_indexed(options),
        "backoffLimit": 0,
        "podFailurePolicy": _pod_failure_policy("FailJob"),
        "template": _pod(config, options, attempt="$(GPTDIST_JOB_UID)"),
    }
    return {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {
            "maxRestarts": config.launch.max_restarts,
            "rules": [
                rule("stay", "FailJobSet", 0),
                rule("again", "RestartJobSetAndIgnoreMaxRestarts", 1, 2),
            ],
        },
        "replicatedJobs": [
            {
                "name": NODE,
                "replicas": 1,
                "template": {**({"metadata": {"labels": dict(job_labels)}} if job_labels else {}), "spec": job},
            }
        ],
    }


def _job_documents(config: RunConfig, options: ClusterOptions) -> list[Document]:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(options),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {"batch.kubernetes.io/job-name": options.name},
            "ports": [{"name": "rendezvous", "port": options.port, "protocol": "TCP"}],
        },
    }
    attempt = "$(GPTDIST_JOB_UID)_$(GPTDIST_FAILURES)_$(GPTDIST_REQUEUES)"
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(options),
        "spec": {
            **_indexed(options),
            "backoffLimitPerIndex": config.launch.max_restarts,
            "maxFailedIndexes": 0,
            "podFailurePolicy": _pod_failure_policy("Ignore"),
            "template": _pod(config, options, attempt=attempt),
        },
    }
    return [service, job]


def _indexed(options: ClusterOptions) -> Document:
    return {"completionMode": "Indexed", "completions": options.nodes, "parallelism": options.nodes}


def _pod_failure_policy(again: str) -> Document:
    """Return what a failed pod means; ``again`` is the action where it is no failure of the run."""
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": _exit_codes(EXIT_USER_ERROR, EXIT_STOPPED)},
            {"action": again, "onExitCodes": _exit_codes(EXIT_REQUEUE)},
            {"action": again, "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        ]
    }


def _exit_codes(*statuses: int) -> Document:
    return {"containerName": NODE, "operator": "In", "values": list(statuses)}


def _pod(config: RunConfig, options: ClusterOptions, *, attempt: str) -> Document:
    argv, environment = _agent(config, options, attempt)
    volumes = [{"name": f"volume-{index}"} for index in range(len(options.volumes))]
    claims = [
        {**name, "persistentVolumeClaim": {"claimName": volume.claim}}
        for name, volume in zip(volumes, options.volumes, strict=True)
    ]
    mounts = [{**name, "mountPath": volume.mount} for name, volume in zip(volumes, options.volumes, strict=True)]
    container = {
        "name": NODE,
        "image": options.image,
        # No shell: the agent is the first process, and gets SIGTERM itself.
        "command": argv,
        "workingDir": str(options.folder),
        "env": environment,
        "resources": _resources(options),
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
            *mounts,
        ],
    }
    return {
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": round(config.launch.shutdown_seconds) + GRACE_SECONDS,
            **({"subdomain": options.name} if options.kind == "job" else {}),
            "containers": [container],
            "volumes": [
                {"name": "config", "configMap": {"name": options.name}},
                # The default of 64 MiB is too little for NCCL and for what processes of a node share.
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},
                *claims,
            ],
        }
    }


def _resources(options: ClusterOptions) -> Document:
    asked = {"cpu": options.cpus, "memory": options.memory}
    asked[options.gpu_resource] = str(options.gpus) if options.gpus else None
    amounts = {name: amount for name, amount in asked.items() if amount is not None}
    return {"requests": amounts, "limits": dict(amounts)} if amounts else {}


def _agent(config: RunConfig, options: ClusterOptions, attempt: str) -> tuple[list[str], list[Document]]:
    """Return the command and the variables of a pod's agent."""
    job = Job(config, Path(CONFIG_FOLDER, CONFIG_FILE), python=options.python)
    logs = Path(options.folder / config.folder, LOGS_NAME)
    rendezvous = Rendezvous(options.nodes, options.head, options.port)
    command = agent_command(job, torchrun_command(job, logs, rendezvous=rendezvous))
    # Logs of one attempt on all pods are together, and apart from those of the one before.
    folders = {LOG_DIR: f"{literal(str(logs))}/launch_{attempt}", HEARTBEAT_DIR: HEARTBEATS}
    told = {**dict(options.environment), **dict(command.environment)}
    environment: list[Document] = [
        {"name": "GPTDIST_JOB_UID", "valueFrom": _field("labels['batch.kubernetes.io/controller-uid']")},
        {"name": "PET_NODE_RANK", "valueFrom": _field("annotations['batch.kubernetes.io/job-completion-index']")},
    ]
    if options.kind == "job":
        counts = {"FAILURES": "job-index-failure-count", "REQUEUES": "job-index-ignored-failure-count"}
        environment += [
            {"name": f"GPTDIST_{name}", "valueFrom": _field(f"annotations['batch.kubernetes.io/{annotation}']")}
            for name, annotation in counts.items()
        ]
    environment += [{"name": name, "value": literal(value)} for name, value in told.items() if name not in folders]
    environment += [{"name": name, "value": value} for name, value in folders.items()]
    return [literal(word) for word in command.argv], environment


def literal(text: str) -> str:
    """Return what stands for ``text`` in a command or variable, where ``$(NAME)`` is a variable and ``$$`` is ``$``."""
    return text.replace("$", "$$")


def _field(path: str) -> Document:
    return {"fieldRef": {"fieldPath": f"metadata.{path}"}}
