"""What a run says of its memory at its end: what was predicted, what measured, of which work."""

from tds_jax.engine.loop import Finished
from tds_jax.training import memory_words

MIB = 2**20


def words(device, host_predicted=None):
    predicted = {"stepping": 129 * MIB, "evaluating": 37 * MIB}
    finished = Finished(True, "", 4, step=122 * MIB, predicted=predicted, device=device)
    return memory_words(finished, 900 * MIB, host_predicted).splitlines()


def test_where_no_device_is_measured_a_steps_bytes_are_predicted():
    host = "host peak 900 MiB measured (all processes)"
    assert words({}) == [f"{host}; device peak 122 MiB predicted"]
    assert words({}, 950 * MIB) == [f"{host}, 950 MiB predicted; device peak 122 MiB predicted"]


def test_each_work_on_a_device_has_a_line_that_says_what_is_known():
    device = {"compiling": (180 * MIB, True), "stepping": (180 * MIB, False)}
    assert words(device | {"evaluating": (190 * MIB, True)})[1:] == [
        "device, compiling: 180 MiB measured",
        "device, stepping: 129 MiB predicted, at most 180 MiB measured",
        "device, evaluating: 37 MiB predicted, 190 MiB measured",
    ]
