"""Manifests held against the published schemas of Kubernetes, JobSet and Kubeflow Trainer, offline."""

from collections.abc import Iterator
from typing import Any

from kubeflow_trainer_api import models
from pydantic import ValidationError

MODELS = {
    "ConfigMap": "IoK8sApiCoreV1ConfigMap",
    "Service": "IoK8sApiCoreV1Service",
    "Job": "IoK8sApiBatchV1Job",
    "JobSet": "JobsetV1alpha2JobSet",
    "TrainJob": "TrainerV1alpha1TrainJob",
    "TrainingRuntime": "TrainerV1alpha1TrainingRuntime",
}


def schema_problems(document: dict[str, Any]) -> list[str]:
    """Return where a manifest is not as its kind's schema says: types, enums, what is missing, unknown keys."""
    try:
        model = getattr(models, MODELS[document["kind"]]).from_dict(document)
    except ValidationError as error:
        return [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()]
    return list(_lost(document, model.to_dict(), document["kind"]))


def _lost(given: Any, understood: Any, where: str) -> Iterator[str]:
    """Yield what the models have passed over, as they do with unknown keys, and what they have made up."""
    if isinstance(given, dict) and isinstance(understood, dict):
        for key in understood.keys() - given.keys():
            yield f"{where}.{key}: missing"  # the models fill in what has to be given
        for key, value in given.items():
            if key in understood:
                yield from _lost(value, understood[key], f"{where}.{key}")
            elif value != {}:
                yield f"{where}.{key}: unknown"
    elif isinstance(given, list) and isinstance(understood, list):
        for index, (one, other) in enumerate(zip(given, understood, strict=True)):
            yield from _lost(one, other, f"{where}[{index}]")
    elif given != understood:
        yield f"{where}: {given!r} became {understood!r}"
