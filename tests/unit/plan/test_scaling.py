"""Scaling laws against the tables of their papers, and what the command says of bad questions."""

import json
from pathlib import Path

import pytest

from gptdist.cli.main import main
from gptdist.config.model import ModelConfig
from gptdist.config.source import read_tree
from gptdist.errors import ConfigError
from gptdist.model.arithmetic import flops_per_token, num_parameters
from gptdist.plan.laws import LAWS, Law, LossLaw, Size, deepseek_batch_tokens, deepseek_learning_rate
from gptdist.plan.scaling import Known, answer, chosen_laws, counted_parameters, nearest_preset, read_number

PRESETS = Path(__file__).parents[3] / "configs" / "models"
LAW = {law.name: law for law in LAWS}

CHINCHILLA = [
    ("hoffmann-1", 400e6, 1.92e19, 8.0e9),
    ("hoffmann-1", 10e9, 1.23e22, 205.1e9),
    ("hoffmann-1", 175e9, 3.85e24, 3.7e12),
    ("hoffmann-1", 1e12, 1.27e26, 21.2e12),
    ("hoffmann-2", 400e6, 1.84e19, 7.7e9),
    ("hoffmann-2", 10e9, 1.32e22, 219.5e9),
    ("hoffmann-2", 67e9, 6.88e23, 1.7e12),
    ("hoffmann-3", 400e6, 2.21e19, 9.2e9),
    ("hoffmann-3", 1e9, 1.62e20, 27.1e9),
    ("hoffmann-3", 10e9, 2.46e22, 410.1e9),
    ("hoffmann-3", 67e9, 1.71e24, 4.1e12),
]
"""Law, parameters, FLOPs and tokens of Hoffmann et al. 2022, tables 3 and A3."""

TABLE_SPARE = 0.06
"""Their tables come of digits that are not printed; exponents are, with two."""


@pytest.mark.parametrize(("name", "parameters", "flops", "tokens"), CHINCHILLA)
def test_chinchillas_tables(name: str, parameters: float, flops: float, tokens: float) -> None:
    best = LAW[name].optimum(flops)
    assert best.parameters == pytest.approx(parameters, rel=TABLE_SPARE)
    assert best.tokens == pytest.approx(tokens, rel=TABLE_SPARE)


def test_the_refit_finds_chinchilla_itself() -> None:
    """70B parameters on 1.4T tokens, and some twenty tokens a parameter, as Besiroglu et al. say."""
    best = LAW["besiroglu"].optimum(5.76e23)
    assert best.parameters == pytest.approx(70e9, rel=0.05)
    assert best.tokens == pytest.approx(1.4e12, rel=0.06)


def test_llama_3s_flagship() -> None:
    """402B parameters on 16.55T tokens for 3.8e25 FLOPs, which are 5 % more than 6 N D."""
    best = LAW["llama3"].optimum(3.8e25)
    assert best.tokens == pytest.approx(16.55e12, rel=0.02)
    assert best.parameters == pytest.approx(402e9, rel=0.04)


def test_kaplan_at_a_petaflop_day() -> None:
    """Appendix A: 1.3e9 parameters; tokens are what is left, 1e10 where it prints 2e10 for twice the FLOPs."""
    best = LAW["kaplan"].optimum(8.64e19)
    assert best.parameters == pytest.approx(1.3e9)
    assert LAW["kaplan"].best_loss(8.64e19) == pytest.approx(3.1e8**0.050)
    assert LAW["kaplan"].optimum(10 * 8.64e19).parameters == pytest.approx(1.3e9 * 10**0.73)


@pytest.mark.parametrize(("parameters", "rate", "batch"), [(7e9, 4.2e-4, 2304 * 4096), (67e9, 3.2e-4, 4608 * 4096)])
def test_deepseeks_rates_are_those_of_its_models(parameters: float, rate: float, batch: int) -> None:
    flops = 6 * parameters * 2e12
    assert deepseek_learning_rate(flops) == pytest.approx(rate, rel=0.02)
    assert deepseek_batch_tokens(flops) == pytest.approx(batch, rel=0.05)


def test_deepseeks_two_exponents_agree() -> None:
    best = LAW["deepseek"].optimum(1e20)
    assert 6 * best.parameters == pytest.approx(0.1715 * 1e20**0.5243, rel=2e-3)


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_budgets_are_the_way_back(law: Law) -> None:
    best = law.optimum(3e21)
    assert best.flops == pytest.approx(3e21)
    assert law.budget_for_parameters(best.parameters) == pytest.approx(3e21)
    assert law.budget_for_tokens(best.tokens) == pytest.approx(3e21)
    loss = law.best_loss(3e21)
    assert loss is None or law.budget_of_loss(loss) == pytest.approx(3e21)


@pytest.mark.parametrize("law", [law for law in LAWS if isinstance(law, LossLaw)], ids=lambda law: law.name)
def test_the_optimum_is_the_least_loss_of_its_budget(law: LossLaw) -> None:
    best = law.optimum(1e22)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert law.loss(Size(best.parameters * factor, best.tokens / factor)) > law.loss(best)
    assert law.loss(best) == pytest.approx(law.best_loss(1e22))
    assert law.budget_of_loss(law.floor) is None


def test_training_longer_wastes_what_a_best_run_would_not_need() -> None:
    """Llama 3 8B on 15T tokens; 0.8186 is a bisection over budgets, the best of each searched on a grid."""
    law = LAW["besiroglu"]
    found = answer(law, Known(parameters=8e9, tokens=15e12))
    assert found.run is not None
    assert found.loss is not None
    assert found.wasted is not None
    assert found.same_loss_flops is not None
    assert found.wasted == pytest.approx(0.8186, abs=1e-3)
    best = law.optimum(found.same_loss_flops)
    assert law.loss(best) == pytest.approx(found.loss)
    assert best.parameters > 8e9
    assert best.tokens < 15e12
    assert found.tokens_for_parameters == pytest.approx(law.optimum(law.budget_for_parameters(8e9)).tokens)
    assert found.best_loss is not None
    assert found.best_loss < found.loss


def test_two_of_three_make_the_third() -> None:
    law = LAW["hoffmann-3"]
    for known in (
        Known(flops=6e21, parameters=1e9),
        Known(flops=6e21, tokens=1e12),
        Known(parameters=1e9, tokens=1e12),
    ):
        size = known.size(law)
        assert size is not None
        assert (size.parameters, size.tokens) == (pytest.approx(1e9), pytest.approx(1e12))


def test_a_config_is_counted_as_each_law_counts() -> None:
    model = ModelConfig.from_tree(read_tree(PRESETS / "gpt2-124m.yaml")["model"])
    assert counted_parameters(model, LAW["besiroglu"]) == num_parameters(model)
    assert counted_parameters(model, LAW["kaplan"]) == num_parameters(model) - (50257 + 1024) * 768
    # 72 L h^2 + 12 L h s of section 3.2 of DeepSeek LLM
    assert 6 * counted_parameters(model, LAW["deepseek"]) == 72 * 12 * 768**2 + 12 * 12 * 768 * 1024
    size = Known(model=model, flops=1e20).size(LAW["besiroglu"])
    assert size is not None
    assert size.tokens == pytest.approx(1e20 / flops_per_token(model))


def test_experts_count_as_a_token_meets_them() -> None:
    model = ModelConfig.from_tree(read_tree(PRESETS / "mixtral-8x7b.yaml")["model"])
    assert counted_parameters(model, LAW["llama3"]) == pytest.approx(12.9e9, rel=0.01)


@pytest.mark.parametrize(
    ("text", "number"), [("7B", 7e9), ("1.4t", 1.4e12), ("125M", 125e6), ("2k", 2e3), ("1e23", 1e23), ("300", 300.0)]
)
def test_numbers_may_have_a_suffix(text: str, number: float) -> None:
    assert read_number("--x", text) == number


@pytest.mark.parametrize("text", ["", "B", "seven", "1e", "7BB"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--x: '{text}' is no number; write one such as 1e23, 7B"):
        read_number("--x", text)


@pytest.mark.parametrize("text", ["0", "-7B", "nan", "inf", "1e999"])
def test_numbers_are_above_zero_and_finite(text: str) -> None:
    with pytest.raises(ConfigError, match=f"--x: must be above 0 and finite, got {text}"):
        read_number("--x", text)


def test_an_unknown_law_is_answered_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--law: no law is called 'chinchila'; known: hoffmann-1"):
        chosen_laws(["chinchila"])
    with pytest.raises(ConfigError, match="did you mean 'besiroglu'"):
        chosen_laws(["besirogli"])
    assert [law.name for law in chosen_laws(["kaplan", "kaplan"])] == ["kaplan"]


def test_the_nearest_preset_is_within_a_factor_of_two() -> None:
    presets = {"small": 1e9, "large": 8e9}
    assert nearest_preset(6e9, presets) == "large"
    assert nearest_preset(3e9, presets) is None
    assert nearest_preset(3e9, {}) is None


def errors(argv: list[str], capsys) -> list[str]:
    assert main(["scaling", *argv]) == 2
    return [line.removeprefix("gptdist scaling: error: ") for line in capsys.readouterr().err.splitlines()]


@pytest.mark.parametrize(
    ("argv", "starts"),
    [
        ([], ["nothing is known"]),
        (["--flops", "1e3"], ["--flops: 1000 is out of range"]),
        (["--parameters", "1e15", "--tokens", "1e18"], ["--parameters, --tokens: they make 6e+33 flops"]),
        (["--flops", "1e23", "--parameters", "7B", "--tokens", "1T"], ["--flops, --tokens: with the parameters"]),
        (["--flops", "x", "--tokens", "0"], ["--flops: 'x' is no number", "--tokens: must be above 0"]),
        (["--devices", "8", "--flops", "1e20"], ["--device-tflops, --days: missing", "--flops: devices and days"]),
        (["--config", "none.yaml", "--law", "x"], ["--law: no law is called 'x'", "none.yaml: no such config file"]),
        (["--config", str(PRESETS / "gpt2-124m.yaml")], ["--config: its file names no training steps"]),
        (
            ["--config", str(PRESETS / "gpt2-124m.yaml"), "--parameters", "1B", "--tokens", "1B"],
            ["--parameters: --config has them already"],
        ),
    ],
)
def test_all_that_is_wrong_is_said_at_once(argv: list[str], starts: list[str], capsys) -> None:
    lines = errors(argv, capsys)
    assert len(lines) == len(starts), lines
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=True)), lines


def test_a_config_without_a_model_or_with_a_bad_one_is_refused(tmp_path: Path, capsys) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("name: x\n")
    assert "model: missing" in errors(["--config", str(path)], capsys)[0]
    path.write_text("model: {num_layers: 0, hidden_size: 8, num_attention_heads: 1, seq_length: 8, vocab_size: 8}\n")
    assert "model.num_layers: must be at least 1" in errors(["--config", str(path), "--tokens", "1B"], capsys)[0]


def test_devices_and_days_are_a_budget(capsys) -> None:
    argv = ["scaling", "--devices", "64", "--device-tflops", "400", "--days", "30", "--law", "besiroglu", "--json"]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["law"] for one in found] == ["besiroglu"]
    assert found[0]["best"]["flops"] == pytest.approx(64 * 400e12 * 30 * 86400)
    assert found[0]["extrapolates"] is True


def test_the_table_names_a_preset_and_every_source(capsys) -> None:
    assert main(["scaling", "--parameters", "70B", "--tokens", "1.4T"]) == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in printed.splitlines()[2 : 2 + len(LAWS)]}
    shown = "besiroglu 5.88e+23 73B 1.34T 18.4 1.974 llama3-70b 1.974 0.1% 1.29T"
    assert lines["besiroglu"] == shown.split()
    assert lines["llama3"][-3:-1] == ["-", "-"]
    assert all(f"{law.name}: {law.source}" in printed for law in LAWS)


def test_a_model_of_experts_is_said_to_be_a_guess(capsys) -> None:
    assert main(["scaling", "--config", str(PRESETS / "mixtral-8x7b.yaml"), "--flops", "1e23"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("46.7B parameters, of which a token meets 12.9B; 978B tokens; 1e+23 FLOPs with attention")
    assert "experts: laws are of dense models" in printed
