"""A teacher that a run cannot learn from is refused from its manifest alone; vocabularies are matched when asked."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gptdist.checkpoint.manifest import Origin, Progress
from gptdist.checkpoint.teacher import check_source, check_teacher, named_teacher, teacher_fingerprint
from gptdist.checkpoint.weights_only import write_weights
from gptdist.cli.main import main
from gptdist.config.distillation import DistillationConfig
from gptdist.config.model import ModelConfig
from gptdist.config.run import RunConfig
from gptdist.data.sources import TrainingData
from gptdist.errors import CheckpointError, ConfigError, GptDistError
from gptdist.model.hf_names import logical_shapes
from gptdist.tokenizer.bpe import BpeTokenizer
from gptdist.tokenizer.byte import ByteTokenizer
from gptdist.tokenizer.matching import NO_MATCH, matched_tokens
from tests.support.datasets import GPT2, run_tree

BYTES = ByteTokenizer()


def other_tokenizer() -> BpeTokenizer:
    """Return one that spells some bytes as ours does, has them in another order, and others that ours has not."""
    tree = json.loads(BYTES.huggingface_json())
    pieces = sorted(tree["model"]["vocab"], reverse=True)
    tree["model"]["vocab"] = {piece: number for number, piece in enumerate([*pieces, "zz"])}
    tree["model"]["merges"] = [["z", "z"]]
    tree["added_tokens"] = [{**tree["added_tokens"][0], "id": 257, "content": "</s>"}]
    return BpeTokenizer(json.dumps(tree), eod_token="</s>")


def write_teacher(folder: Path, fingerprint: str = BYTES.fingerprint, **model: Any) -> Path:
    """Write a checkpoint of weights alone."""
    section = ModelConfig.from_tree({**GPT2, **model})
    generator = torch.Generator().manual_seed(1)
    write_weights(
        folder,
        ((name, torch.randn(shape, generator=generator)) for name, shape in logical_shapes(section).items()),
        config={"name": "teacher", "model": section.tree(), "data": {"sources": []}},
        progress=Progress(step=0, consumed_samples=0, consumed_tokens=0, optimizer_step=0),
        tokenizer_fingerprint=fingerprint,
        origin=Origin(kind="average", sources=()),
    )
    return folder


def config_of(tmp_path: Path, section: dict[str, Any], **changes: Any) -> RunConfig:
    return RunConfig.from_tree(run_tree(tmp_path, distillation=section, **changes))


def refused(config: RunConfig, error: type[GptDistError], message: str) -> None:
    with pytest.raises(error, match=message):
        check_teacher(config, BYTES)


def test_teachers_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    other = write_teacher(tmp_path / "other", "1" * 64)
    refused(
        config_of(tmp_path, {"teacher": str(other)}),
        ConfigError,
        r"other: trained with tokenizer 1{12}, data.tokenizer is \w{12}; take a teacher of this tokenizer, or set "
        r"distillation.map_vocabulary",
    )
    larger = write_teacher(tmp_path / "larger", "", vocab_size=300)
    refused(
        config_of(tmp_path, {"teacher": str(larger)}),
        ConfigError,
        r"larger: vocab_size 300, model.vocab_size is 257; take a teacher",
    )
    short = write_teacher(tmp_path / "short", seq_length=16, num_attention_heads=1)
    config = config_of(
        tmp_path,
        {"teacher": str(short), "hidden": [{"student_layer": 0, "teacher_layer": 2}]},
        parallel={"tensor_parallel_size": 2},
    )
    with pytest.raises(ConfigError) as caught:
        check_teacher(config, BYTES)
    assert [problem.replace(f"{short}", "T") for problem in caught.value.problems][:3] == [
        "distillation.hidden[0].teacher_layer: 2, but T has layers 0 to 1; name one of them",
        "distillation.teacher: T: knows 16 positions, model.seq_length is 32; shorten that, or train the teacher "
        "further with longer samples",
        "parallel.tensor_parallel_size (2) does not divide the teacher's num_attention_heads (1); use a divisor",
    ]
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text("{}")
    refused(
        config_of(tmp_path, {"teacher": str(tmp_path / "hf")}),
        CheckpointError,
        r"hf: is in the Hugging Face layout; make a checkpoint of it first \(`gptdist import",
    )


def test_launch_refuses_in_one_line_before_any_rank_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ruamel.yaml import YAML

    config = tmp_path / "run.yaml"
    larger = write_teacher(tmp_path / "larger", vocab_size=300)
    for teacher, message in (
        (larger, "vocab_size 300, model.vocab_size is 257"),
        (tmp_path / "none", "does not exist; name another"),
    ):
        YAML(typ="safe", pure=True).dump(run_tree(tmp_path, distillation={"teacher": str(teacher)}), config)
        assert main(["launch", "local", str(config)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert message in lines[0]
    assert not (tmp_path / "run").exists()


def test_tokens_that_both_spell_alike_are_matched(tmp_path: Path) -> None:
    theirs = other_tokenizer()
    found = matched_tokens(BYTES, theirs, 260)
    spelled = json.loads(theirs.huggingface_json())["model"]["vocab"]
    assert found[ord("a")] == spelled["a"]
    assert found[BYTES.eod_id] == theirs.eod_id, "the ends of documents match, however they are spelled"
    assert sorted(found[:257]) == sorted({*range(256), 257}), "each of ours has one, 'zz' is nobody's"
    assert (found[257:] == NO_MATCH).all(), "ids beyond the tokenizer"

    theirs.save(tmp_path / "theirs")
    teacher = write_teacher(tmp_path / "teacher", theirs.fingerprint, vocab_size=258)
    section = {"teacher": str(teacher), "map_vocabulary": True}
    refused(
        config_of(tmp_path, section), ConfigError, r"distillation.teacher_tokenizer: missing, and .*teacher names none"
    )
    right = section | {"teacher_tokenizer": str(tmp_path / "theirs")}
    opened = check_teacher(config_of(tmp_path, right), BYTES)
    assert opened.matched is not None
    assert np.array_equal(opened.matched, found[:257])
    assert (opened.num_shared, opened.end_of_document) == (257, 257)
    wrong = section | {"teacher_tokenizer": str(tmp_path / "data/tokenizer")}
    refused(config_of(tmp_path, wrong), ConfigError, r"was trained with \w{12}; name that one")
    small = write_teacher(tmp_path / "small", "", vocab_size=257)
    refused(
        config_of(tmp_path, right | {"teacher": str(small)}),
        ConfigError,
        r"theirs ends documents with id 257, and .*small has a vocabulary of 257; name the teacher's own",
    )


def test_a_teacher_is_known_by_its_manifest(tmp_path: Path) -> None:
    one, two = (write_teacher(tmp_path / name, num_layers=layers) for name, layers in (("one", 2), ("two", 3)))
    section = DistillationConfig(teacher=one)
    assert teacher_fingerprint(section) == named_teacher(one).fingerprint != named_teacher(two).fingerprint
    assert teacher_fingerprint(None) == ""
    config = config_of(tmp_path, {"teacher": str(one)})
    assert check_source(config, BYTES, TrainingData(config)) == check_teacher(config, BYTES)
