"""Devices and networks: what is shipped, a user's own, and names that are not known."""

from pathlib import Path

import pytest

from gptdist.errors import ConfigError
from gptdist.plan.device import device_names, find_device, find_network, network_names


@pytest.mark.parametrize("name", device_names())
def test_every_shipped_device_is_sound(name: str) -> None:
    device = find_device(name)
    assert device.name == name
    assert device.problems() == []
    sixteen = device.peak_flops.bf16 or device.peak_flops.fp16 or 0.0
    assert device.architecture == "cpu" or sixteen > device.peak_flops.fp32
    assert device.link_bandwidth >= device.network_bandwidth


def test_the_devices_that_users_ask_for_are_there() -> None:
    wanted = {"v100-32gb", "a100-40gb", "a100-80gb", "h100-80gb", "h200-141gb", "b200-180gb", "mi300x-192gb"}
    assert wanted <= set(device_names())


@pytest.mark.parametrize("name", network_names())
def test_every_shipped_network_is_sound(name: str) -> None:
    assert find_network(name).node_bandwidth > 1e9


def test_an_unknown_device_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"--device: no 'h100-80g'; the nearest are h100-80gb"):
        find_device("h100-80g")
    with pytest.raises(ConfigError, match=r"--interconnect: no 'ib-ndr'; the nearest are ib-ndr-8x400"):
        find_network("ib-ndr")


def test_a_device_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (Path(__file__).parents[3] / "configs/devices/h100-80gb.yaml").read_text()
    mine = tmp_path / "configs" / "devices" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text(text.replace("power_watts: 700", "power_watts: 350"))
    assert find_device("mine").power_watts == 350
    assert find_device(str(mine)).name == "mine"


def test_problems_of_a_device_are_told_at_once(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "configs/devices/h100-80gb.yaml").read_text()
    path = tmp_path / "bad.yaml"
    path.write_text(text.replace("power_watts: 700", "power_watts: 0").replace("fp8: 1978.9e12", "fp8: -1.0"))
    with pytest.raises(ConfigError) as error:
        find_device(str(path))
    assert [problem.partition(": ")[2].partition(":")[0] for problem in error.value.problems] == [
        "power_watts",
        "peak_flops.fp8",
    ]
    network = tmp_path / "net.yaml"
    network.write_text("node_bandwidth: 0.0\n")
    with pytest.raises(ConfigError, match=r"node_bandwidth: must be above 0, got 0"):
        find_network(str(network))


def test_ranks_of_a_cpu_node_share_it() -> None:
    gpu = find_device("h100-80gb")
    assert gpu.shared(4) is gpu
    node = gpu.model_copy(update={"architecture": "cpu"})
    half = node.shared(2)
    assert half.peak_flops.fp32 == node.peak_flops.fp32 / 2
    assert half.memory_bytes == node.memory_bytes // 2
