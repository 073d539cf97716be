"""The cases of `card`: each is run in a process of its own and answers with rows of its table.

Whatever only a card can tell is None here on CPU, and shown as not measured.
"""

import contextlib
import functools
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
TRACKING = "emg2pose_tracking"
# (D, H, W) and channels of the 3 x 3 x 3 convolutions that voxel_ultra has most of.
VOLUMES = ((8, 32, 32), 16), ((8, 32, 32), 32), ((4, 16, 16), 32), ((4, 8, 8), 32)
# The network of step_vs_pytorch, whose rows stand beside these.
FULL = {"model__alignment": "fixed", "loss__fingertip_weight": 0.0, "optim__accumulate": 1}
WARM, ROUNDS, BURST = (
    3,
    5,
    4,
)  # updates before the clock runs; bursts that are timed; updates in one


def product(preset, settings, cache, words=""):
    """`train` as a user runs it, twice: compiling everything, and with its programs kept."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for start in ("cold", "warm"):
            kept = start == "cold" and Path(cache).exists()
            made = _train(preset, Path(name) / start, settings, cache)
            rows.append(
                {"preset": f"{preset}{words}", "start": "warm, kept" if kept else start, **made}
            )
    return rows


def _train(preset, folder, settings, cache):
    flags = settings | {"memory.compile_cache": cache}
    command = [sys.executable, "-m", "tds_jax.train", f"--config=configs/{preset}.py"]
    command += [f"--workdir={folder}", *(f"--config.{k}={v}" for k, v in flags.items())]
    output, began = folder.parent / f"{folder.name}.txt", time.time()
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    text = output.read_text()
    assert status == 0, text[-2000:]
    return {
        **told(text, (folder / "metrics.jsonl").read_text(), began),
        "all [s]": time.time() - began,
        "CPU [s]": usage.ru_utime + usage.ru_stime,
    }


def told(text, metrics, began):
    """What a run has printed, and its lines of metrics say, of its speed and bytes.

    The first update begins a line's updates before that line is written. Speeds are of lines but
    the first: its updates take memory.
    """
    lines = [json.loads(line) for line in metrics.splitlines()]
    train = [line for line in lines if line["split"] == "train"]
    first, later = train[0], train[1:]
    pace = "perf/samples_per_s"
    compiled = re.search(r"compiled in (\d+) s", text)
    host = re.search(r"host peak ([\d.]+ \w+) measured", text)
    return {
        "first update [s]": first["perf/time"] - began - first["examples"] / first[pace],
        "compiled [s]": int(compiled[1]),
        "windows/s": statistics.median(line[pace] for line in later),
        "input wait": statistics.mean(line["perf/input_wait"] for line in later),
        "host peak": host[1],
        "device": "; ".join(re.findall(r"^device, (.*)$", text, re.MULTILINE)) or None,
    }


def host(settings, environment):
    """Host memory and seconds of a cold start under variables of malloc and the compiler."""
    os.environ |= environment
    with tempfile.TemporaryDirectory() as name:
        made = _train("low_memory", Path(name) / "run", settings, f"{name}/compiled")
    words = " ".join(f"{k}={v}" for k, v in environment.items()) or "as it is"
    return [{"variables": words} | {k: made[k] for k in ("host peak", "compiled [s]", "CPU [s]")}]


def _configured(preset, changes):
    """The config, told to compiler and products as every door does."""
    from experiments.measuring import load
    from tds_jax.engine import compilation
    from tds_jax.nn.precision import set_matmul_precision

    config = load(preset, **changes)
    compilation.tell_compiler(config.memory.deterministic)
    set_matmul_precision(config.memory.matmul_precision)
    return config


def step(preset, changes, note, cache):
    """An update on random numbers: time, the host's share of it, kernels, bytes of each work."""
    import jax

    from experiments.measuring import Step
    from tds_jax.budget import memory
    from tds_jax.budget.launches import launches
    from tds_jax.engine import compilation

    compilation.keep_programs(cache, ROOT)
    config = _configured(preset, changes)
    made = Step(config)
    program = made.program
    for _ in range(WARM):
        made()
    program.device.note(memory.STEPPING)
    both = [_burst(made) for _ in range(ROUNDS)]
    evaluated(program, made.state)
    least, host = min(all_ for all_, _ in both), min(host for _, host in both)
    on_card = jax.default_backend() != "cpu"
    kernels = launches(program.train_step.as_text()) * config.calls_per_update if on_card else None
    return [
        {
            "preset": preset,
            "what": f"{config.optim.micro_batch} x {config.optim.accumulate}{note}",
            "ms": 1e3 * least,
            "host ms": 1e3 * host,
            "host's share": host / least,
            "kernels": kernels,
            "compiled [s]": program.compile_seconds,
            **{work: _bytes(program, work) for work in ("compiling", "stepping", "evaluating")},
        }
    ]


def _burst(made):
    """(seconds an update took, and of these the host) of some updates in a row."""
    import jax

    started = time.perf_counter()
    for _ in range(BURST * made.calls):
        made.state, objective = made.program.train_step(made.state, made.batch)
    handed = time.perf_counter()
    jax.block_until_ready(objective)
    return (time.perf_counter() - started) / BURST, (handed - started) / BURST


def evaluated(program, state):
    """One batch of evaluation on random numbers, its bytes noted."""
    import jax

    from experiments.measuring import random_arrays
    from tds_jax.budget import memory
    from tds_jax.engine import sharding

    run = program.eval_step
    batch = random_arrays(program.blueprint.eval_spec(program.mesh))
    batch = sharding.put_batch(batch, program.mesh)
    jax.block_until_ready(run(state.weights, state.rest, batch))
    program.device.note(memory.EVALUATING)


def _bytes(program, work):
    """'predicted, measured' of a work; None where a device does not tell."""
    from tds_jax.sizes import format_bytes

    if work not in program.device.found:
        return None
    peak, own = program.device.found[work]
    need = program.needs().get(work)
    planned = "" if need is None else f"{format_bytes(need)}, "
    return f"{planned}{'' if own else '<= '}{format_bytes(peak)}"


def eager(batch, device):
    """A step of the full-size network in plain PyTorch, as one would write it."""
    import torch

    from experiments.step_vs_pytorch import torch_side

    run, _, facts = torch_side.prepare(batch, device=device)
    for _ in range(WARM):
        run()
    seconds = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        run()  # ends with the loss on the host
        seconds.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    return [{"preset": TRACKING, "what": f"{batch} x 1, PyTorch {torch.__version__}, eager"}
            | {"ms": 1e3 * min(seconds), "stepping": peak and f"{peak / 2**20:.0f} MiB"}
            | {"parameters": facts["parameters"]}]  # fmt: skip


def parity(preset, changes):
    """Loss and gradients of one micro-batch against the same in f32 on CPU, at each precision."""
    import jax

    from experiments.measuring import make_blueprint, random_arrays

    config = _configured(preset, changes)
    cpu, device = jax.devices("cpu")[0], jax.devices()[0]
    made = make_blueprint(config)
    with jax.default_device(cpu):
        state = jax.jit(made.init)(made.key)
    batch = random_arrays(made.spec)
    want = _gradients(config, state, batch, cpu, "highest")
    rows = []
    for dtype, precision in (("float32", "default"), ("float32", "high"), ("float32", "highest"),
                             ("bfloat16", "default")):  # fmt: skip
        if device == cpu and precision == "high":
            continue
        found = _gradients(_with_dtype(config, dtype), state, batch, device, precision)
        rows.append({"preset": preset, "dtype": dtype, "precision": precision}
                    | distance(found, want))  # fmt: skip
    return rows


def _with_dtype(config, dtype):
    from tds_jax import config as configuration

    return configuration.replace(config, {"memory.dtype": dtype})


def _gradients(config, state, batch, device, precision):
    """(loss, gradients) on the host."""
    import jax

    from experiments.measuring import make_blueprint
    from tds_jax.engine.step import make_total

    made = make_blueprint(config)
    total = make_total(made.graphdef, made.task.loss)
    arguments = jax.device_put((state.params, state.rest, batch), device)
    with jax.default_matmul_precision(None if precision == "default" else precision):
        value, grads = jax.jit(jax.value_and_grad(total, has_aux=True))(*arguments)
    return jax.device_get((value[0], grads))


def distance(found, want):
    """Of two (loss, gradients): relative to the loss, and to the norm of each gradient, the worst
    and that of all together."""
    import jax
    import numpy as np

    pairs = list(zip(*map(jax.tree.leaves, (found[1], want[1])), strict=True))
    away = [np.linalg.norm(np.subtract(a, b, dtype=np.float64)) for a, b in pairs]
    size = [np.linalg.norm(np.float64(b)) for _, b in pairs]
    return {
        "loss": float(abs(found[0] - want[0]) / abs(want[0])),
        "gradients": float(np.linalg.norm(away) / np.linalg.norm(size)),
        "worst gradient": float(max(a / b for a, b in zip(away, size, strict=True) if b)),
    }


def width_conv(preset, batch):
    """Both forms of the convolution of TDS blocks, forward and backward, at a preset's shapes."""
    import jax.numpy as jnp

    from experiments.measuring import load
    from tds_jax.nn import conv

    config, rows = load(preset), []
    model, length = config.model, config.data.window
    names = "conv_kernels", "conv_strides", "groups", "widths", "tds_kernels", "tds_blocks"
    stages = zip(*(getattr(model, name) for name in names), strict=True)
    for kernel, stride, groups, width, size, blocks in stages:
        length = (length - kernel) // stride + 1
        shapes = (batch, length, groups * width), (size, groups, groups)
        for dtype in (jnp.float32, jnp.bfloat16):
            row = {"x": str(shapes[0]), "K": size, "groups": groups, "dtype": jnp.dtype(dtype).name}
            for form in (conv.native, conv.banded):
                row[f"{form.__name__} [ms]"] = 1e3 * least(_both_ways(form, shapes, dtype))
            rows.append(row)
        length -= (size - 1) * blocks
    return rows


def volume_conv(batches):
    """Both forms of the convolutions of voxel_ultra, forward and backward."""
    import jax.numpy as jnp

    from tds_jax.nn import conv_nd

    rows = []
    for batch in batches:
        for space, width in VOLUMES:
            shapes = (batch, *space, width), (3, 3, 3, width, width)
            row = {"x": str(shapes[0])}
            for form in (conv_nd.native, conv_nd.by_depth):
                padded = functools.partial(form, (1, 1, 1), ((1, 1),) * 3)
                row[f"{form.__name__} [ms]"] = 1e3 * least(_both_ways(padded, shapes, jnp.float32))
            rows.append(row)
    return rows


def _both_ways(form, shapes, dtype):
    """A call of a form and its gradients on ones."""
    import jax
    import jax.numpy as jnp

    x, kernel = (jnp.ones(shape, dtype) for shape in shapes)
    both = jax.jit(jax.grad(lambda x, w: jnp.sum(form(x, w), dtype=jnp.float32), (0, 1)))
    return lambda: both(x, kernel)


def least(call):
    """The least seconds of a call in a row of some, after those that compile and warm up."""
    import jax

    jax.block_until_ready(call())
    found = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(BURST):
            made = call()
        jax.block_until_ready(made)
        found.append((time.perf_counter() - started) / BURST)
    return min(found)


def repeats(platform, steps):
    """A run repeated by its seed, and one of another seed."""
    from experiments import determinism

    return _verdict("the same seed twice, another once", determinism.prove, platform, steps=steps)


def killed(platform, steps, kills, terms):
    """A run that is killed, against an undisturbed one."""
    from experiments import kill_resume

    sizes = {"steps": steps, "kills": kills, "terms": terms, "seed": 1}
    return _verdict(f"{kills} x SIGKILL, {terms} x SIGTERM", kill_resume.prove, platform, **sizes)


def _verdict(what, prove, platform, **sizes):
    """A row with the last line of an experiment's words."""
    words = io.StringIO()
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(words):
        prove(Path(name), platform=platform, **sizes)
    return [{"runs": what, "verdict": words.getvalue().strip().splitlines()[-1]}]
