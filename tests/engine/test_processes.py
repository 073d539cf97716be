"""Several processes train one run as one would, stop together, and end when one of them dies."""

import dataclasses
import json
import socket
import threading

import pytest

from tds_jax.budget import giving_way
from tds_jax.budget.memory import Exhausted
from tds_jax.engine import loop, meeting, processes, sharding, workdir
from tds_jax.engine import peers as peers_of
from tds_jax.engine.blueprint import Blueprint
from tds_jax.engine.checkpoint import Checkpoints
from tds_jax.engine.peers import Left, Peers
from tds_jax.errors import UserError
from tests.engine import toy
from tests.engine.together import SILENCE, OneOf, ended, peers

# f32 sums in another order, 6 updates of AdamW: each divides a mean by the root of its square,
# which does not make relative errors larger; 2^-24 times a hundred terms.
ROUNDING = 1e-5


def trained(folder, **changes):
    """Parameters of a run in a folder, which this process begins, or goes on with."""
    blueprint = Blueprint(toy.ToyTask(), toy.config(**changes))
    finished = loop.fit(blueprint, folder)
    assert finished.complete
    checkpoints = workdir.open_checkpoints(folder, blueprint.config)
    restored, _ = workdir.resume(checkpoints, blueprint, sharding.all_devices(), print)
    checkpoints.close()
    return restored.state.params


def scores(folder):
    """What a run has logged of its evaluations, without what depends on the machine."""
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith(("perf/", "split"))}
        for line in found
        if line["split"] == "val"
    ]


def test_two_processes_stopped_through_one_and_continued_by_one_equal_one(tmp_path):
    whole = trained(tmp_path / "one")
    both = tmp_path / "two"
    found = ended(peers(both, 2, to=1, at=3, what="SIGTERM"))
    assert [status for status, *_ in found] == [0, 0], found
    assert '"signal": "SIGTERM", "steps": 3' in found[0][1]
    assert [int(path.name) for path in sorted((both / "checkpoints").iterdir())] == [16, 24]
    assert toy.relative(trained(both), whole) < ROUNDING
    for ours, theirs in zip(scores(both), scores(tmp_path / "one"), strict=True):
        assert ours == pytest.approx(theirs, rel=ROUNDING)


@pytest.mark.long
def test_a_process_that_compiles_for_longer_than_a_network_waits_is_waited_for(tmp_path):
    found = ended(peers(tmp_path, 2, to=1, at=60, what="late"))
    assert [status for status, *_ in found] == [0, 0], found


def test_processes_meet_before_orbax_lets_them(tmp_path, monkeypatch):
    alone, met = OneOf(0, 2), []
    monkeypatch.setattr(alone, "ask", lambda value, of: met.append(set(tmp_path.iterdir())) or [])
    monkeypatch.setattr(processes, "_peers", alone)
    monkeypatch.setattr(processes, "_connected", False)
    for name in ("one", "two"):
        Checkpoints.open(tmp_path / name, keep=1).close()
    assert met == [set()]


@pytest.mark.long
@pytest.mark.parametrize("dead", [0, 1])
def test_a_process_that_is_killed_ends_the_others_with_a_line_that_names_it(tmp_path, dead):
    found = ended(peers(tmp_path, 2, to=dead, at=3, what="SIGKILL"))
    status, _, words = found[1 - dead]
    (line,) = (line for line in words.splitlines() if line.startswith("error: "))
    assert (status, line[: len("error: process 0 on")]) == (1, f"error: process {dead} on")
    assert line.endswith("the same command goes on, also with fewer processes")
    trained(tmp_path)


@pytest.mark.parametrize("agreed", [True, False])
def test_a_process_that_stops_for_ctrl_c_ends_no_other_that_has_agreed_to_stop(monkeypatch, agreed):
    ended, told = [], []
    for loops in ("_exchange", "_judge"):
        monkeypatch.setattr(Peers, loops, lambda peers: None)
    monkeypatch.setattr(Peers, "_end", lambda peers, *words: ended.append(words))
    monkeypatch.setattr(peers_of.StopSignal, "tell", told.append)
    together = Peers(None, 0, 2, 60.0)
    left = dataclasses.asdict(Left(130, "stopped", "SIGINT"))
    together._hear(1, {"beat": 7, "host": "node", "left": left})
    together.agreed = agreed  # else it hears of it, and ends where it waits in vain
    for _ in range(2):
        together._judge_one(1)
    assert told == ["SIGINT"] * (not agreed)
    assert ended == [("process 1 on node has ended: stopped", 130)] * (not agreed)


def test_all_come_together_before_they_give_way(monkeypatch):
    alone, done = OneOf(1, 2), []
    monkeypatch.setattr(processes, "_peers", alone)

    def work(config):
        done.append((config.optim.accumulate, len(alone.assembled)))
        if config.optim.accumulate == 2:
            raise Exhausted("optim.accumulate")

    giving_way.within_memory(work, toy.config(optim__accumulate=2), lambda config: None)
    assert done == [(2, 0), (4, 1)]
    assert alone.assembled[0].startswith("process 1 alone ran out of device memory; the same comm")


@pytest.mark.long
def test_ctrl_c_in_one_process_stops_all_after_one_call_saved_once(tmp_path):
    found = ended(peers(tmp_path, 2, to=1, at=3, what="SIGINT"))
    assert [status for status, *_ in found] == [0, 0], found
    assert '"signal": "SIGINT", "steps": 3' in found[0][1]
    assert [int(path.name) for path in sorted((tmp_path / "checkpoints").iterdir())] == [16, 24]


@pytest.mark.long
def test_processes_stop_early_together_by_one_score(tmp_path):
    """The second, whose own score would be ever better, hears the first's."""
    config = {"optim__steps": 50, "eval__patience": 3, "eval__every": 1}
    task = {"worsen": True}
    found = ended(peers(tmp_path, 2, to=1, what="score", config=config, task=task))
    assert [status for status, *_ in found] == [0, 0], found
    assert '"complete": true, "signal": "", "steps": 4' in found[0][1]


@pytest.mark.long
def test_memory_that_runs_out_in_all_halves_the_micro_batch_in_all(tmp_path):
    config = {"optim__accumulate": 2}
    found = ended(peers(tmp_path, 2, at=5, what="memory", config=config))
    assert [status for status, *_ in found] == [0, 0], found
    assert "the device ran out of memory; going on with optim.accumulate=4" in found[0][1]
    assert '"steps": 6' in found[0][1]
    assert '"accumulate": 4' in found[0][1]
    whole = trained(tmp_path / "one", optim__accumulate=4)
    assert toy.relative(trained(tmp_path, optim__accumulate=4), whole) < ROUNDING


@pytest.mark.long
def test_memory_that_runs_out_in_one_ends_all_with_what_to_give(tmp_path):
    found = ended(peers(tmp_path, 2, to=1, at=5, what="memory", config={"optim__accumulate": 2}))
    assert [status for status, *_ in found] == [2, 2], found
    words = "process 1 alone ran out of device memory; the same command goes on with"
    for _, _, said in found:
        assert f"{words} --config.optim.accumulate=4" in said


@pytest.mark.long
@pytest.mark.parametrize("wrong", [0, 1])
def test_an_error_in_one_process_ends_the_others_with_its_words(tmp_path, wrong):
    found = ended(peers(tmp_path, 2, to=wrong, at=3, what="error"))
    assert [status for status, *_ in found] == [1, 1]
    assert f"process {wrong} on" in found[1 - wrong][2]
    assert "this process alone finds its input wrong" in found[1 - wrong][2]


def met(count, comers, seconds=1.0):
    """What each of some numbers of processes is told at a meeting."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    told = {}

    def come(place, index, said):
        try:
            told[place] = meeting.meet(address, said, index, seconds, lambda: None)
        except UserError as error:
            told[place] = str(error)

    threads = [
        threading.Thread(target=come, args=(place, *comer)) for place, comer in enumerate(comers)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [told[place] for place in range(len(comers))]


def test_a_process_that_does_not_come_is_named_to_all_who_came():
    told = met(4, [(0, 4), (2, 4)])
    assert told[0] == told[1]
    assert told[0].startswith("processes 1, 3 of 4 did not come to 127.0.0.1:")
    assert "in 1 s" in told[0]


def test_a_coordinator_that_does_not_come_is_named():
    (told,) = met(2, [(1, 2)])
    assert told.startswith("process 0 of 2 did not answer at 127.0.0.1:")


@pytest.mark.parametrize(
    ("comers", "text"),
    [
        ([(0, 3), (1, 3), (1, 3)], "two processes say --process=1"),
        ([(0, 3), (1, 2)], "--processes=3 here, but 2 on"),
    ],
)
def test_who_says_other_things_than_the_first_is_refused(comers, text):
    told = met(3, comers, seconds=5.0)
    assert all(text in words for words in told if not words.startswith("127."))
    assert text in told[0]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (("node1:8476", None, None), "--coordinator needs --processes and --process beside it"),
        ((None, 2, None), "--processes needs --coordinator and --process beside it"),
        (("node1:8476", 2, 2), "--process=2 must be between 0 and --processes=2 less 1"),
        (("node1", 2, 0), "--coordinator=node1 must be HOST:PORT"),
    ],
)
def test_what_is_wrong_with_the_flags_is_said(given, text):
    with pytest.raises(UserError) as error:
        processes.start(*given)
    assert text in str(error.value)


def test_alone_a_process_decides_by_itself():
    assert (processes.index(), processes.count(), processes.first()) == (0, 1, True)
    assert (processes.agree(True), processes.agree(False)) == (True, False)
    assert processes.by_first(lambda: 3) == processes.together(lambda: 3) == 3
    assert processes.share([1, 2, 3]) == [1, 2, 3]
    left = Left(0, "done")
    processes.leave(left)
    assert dataclasses.asdict(left)["signal"] == ""
    assert SILENCE < processes.SILENCE
