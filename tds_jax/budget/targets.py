"""Devices a plan can be made for: the one here, or a description of one that is not.

Compiling for a description needs its compiler but neither the device nor a driver: NVIDIA's comes
with the extra `plan-gpu`, the TPU's with `tpu`.
"""

import dataclasses
import importlib.util
import math
import os
from collections.abc import Callable, Sequence
from importlib import metadata

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from tds_jax.budget import host
from tds_jax.budget.cost import Speed
from tds_jax.engine import sharding
from tds_jax.errors import UserError
from tds_jax.fields import require
from tds_jax.sizes import GIB, MIB


@dataclasses.dataclass(frozen=True)
class Target:
    """A device to plan for.

    limit: bytes it can give one process. margin, at_least: what a plan leaves free below a budget,
    as a share of it and in bytes, for what the compiler's account does not hold. on_host: its
    memory is the host's.
    """

    name: str
    kind: str
    mesh: Callable[[int], Mesh]
    limit: int
    margin: float
    at_least: int
    speed: Speed
    on_host: bool

    def usable(self, budget: int) -> int:
        """What of a budget a predicted peak may take."""
        return budget - max(round(budget * self.margin), self.at_least)

    def budget_for(self, peak: int) -> int:
        """The least budget of which a predicted peak may be taken."""
        return max(math.ceil(peak / (1 - self.margin)), peak + self.at_least)


# CPU: 16 of 18 measured peaks lay within 20 MiB or 10 % of what was predicted, on a busy machine
# 13, the worst 34 MiB above (experiments/README.md). GPU: the allocator's fragmentation and the
# workspace of autotuned kernels are not in the account, and without a card not measured here. TPU:
# the compiler itself refuses what does not fit, so only fragmentation remains.
_MARGINS = {"cpu": (0.0, 20 * MIB), "gpu": (0.10, 20 * MIB), "tpu": (0.05, 20 * MIB)}

# Data-sheet peaks of f32 products (TF32 on the H100, bf16 passes on the v5e) at the half of it that
# products of these sizes reach, memory bandwidth, time to start one operation, and links to other
# devices, one way: NVLink of the H100, the v5e's four of 50 GB/s.
H100 = Speed(flops=2e14, bandwidth=3.35e12, latency=4e-6, link=4.5e11)
_V5E = Speed(flops=3e13, bandwidth=8.2e11, latency=1e-6, link=2e11)
_CORE = Speed(flops=3e10, bandwidth=1e10, latency=1e-5)

# What the compiler asks of a card, in its own text format.
_H100_CONFIG = {
    "gpu_device_info": {
        "threads_per_block_limit": 1024,
        "threads_per_warp": 32,
        "threads_per_core_limit": 2048,
        "shared_memory_per_block": 48 * 1024,
        "shared_memory_per_core": 228 * 1024,
        "shared_memory_per_block_optin": 227 * 1024,
        "registers_per_core_limit": 65536,
        "registers_per_block_limit": 65536,
        "core_count": 132,
        "fpus_per_core": 128,
        "block_dim_limit_x": 2**31 - 1,
        "block_dim_limit_y": 65535,
        "block_dim_limit_z": 65535,
        "memory_bandwidth": 3352320000000,
        "l2_cache_size": 50 * MIB,
        "clock_rate_ghz": 1.98,
        "device_memory_size": 84929347584,
        "cuda_compute_capability": {"major": 9},
    },
    "platform_name": '"CUDA"',
    "dnn_version_info": {"major": 9, "minor": 7},
    "runtime_version": {"major": 12, "minor": 8, "patch": 0},
    "device_description_str": '"NVIDIA H100 80GB HBM3"',
}
_H100_BYTES = int(0.75 * 84929347584)  # what XLA takes of the card by default
_V5E_BYTES = int(15.75 * GIB)

CARDS = 8  # of one host
_V5E_SLICES = {1: "2x2", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16"}
_V5E_SLICES[256] = "16x16"

NAMES = ("here", "cpu", "h100", "v5e")


def prepare(name: str, devices: int = 1) -> None:
    """Sets what a target's compiler reads; call before jax first touches a device."""
    if name == "cpu" and devices > 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={devices}"
    if name != "here":
        jax.config.update("jax_platforms", "cpu")
    if name == "h100":  # kernels cannot be timed on a card that is not there
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_gpu_autotune_level=0".strip()
    if name == "v5e":
        os.environ["TPU_SKIP_MDS_QUERY"] = "1"
        os.environ["TPU_ACCELERATOR_TYPE"] = "v5litepod-4"
        os.environ["TPU_WORKER_HOSTNAMES"] = "localhost"


def find(name: str, devices: int | None = None) -> Target:
    """The target of a name in NAMES, so many of it; by default all that are here, or one.

    Raises UserError if its compiler is not installed.
    """
    if name == "h100":
        _require("jax_cuda12_plugin", name, "plan-gpu")
        _require_of_jaxlib(("jax-cuda12-plugin", "jax-cuda12-pjrt"), name)
        count = devices or 1
        hosts = -(-count // CARDS)
        require(
            count <= CARDS or count % CARDS == 0,
            f"--devices={count} of h100 must be at most {CARDS}, or hosts of {CARDS} each",
        )
        topology = topologies.get_topology_desc(
            platform="cuda",
            target_config=_text(_H100_CONFIG),
            topology=f"1x{hosts}x{count // hosts}",
        )
        return _described(name, topology.devices, _H100_BYTES, "gpu", H100)
    if name == "v5e":
        _require("libtpu", name, "tpu")
        sizes = ", ".join(map(str, _V5E_SLICES))
        require((devices or 1) in _V5E_SLICES, f"--devices={devices} of v5e must be one of {sizes}")
        slice_ = _V5E_SLICES[devices or 1]
        topology = topologies.get_topology_desc(platform="tpu", topology_name=f"v5e:{slice_}")
        return _described(name, topology.devices[: devices or 1], _V5E_BYTES, "tpu", _V5E)
    there = jax.device_count()
    require(
        devices in (None, there),
        f"--devices={devices}, but {there} are here; leave it out, or describe some: --target=cpu",
    )
    return _present(name)


def _require(module: str, target: str, extra: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise UserError(
            f"--target={target} needs its compiler; install it with pip install 'tds_jax[{extra}]'"
        )


def _require_of_jaxlib(packages: Sequence[str], target: str) -> None:
    """The compiler of another release may refuse, by pages of bytes, what this jaxlib writes."""
    wanted = metadata.version("jaxlib")
    for package in packages:
        found = metadata.version(package)
        require(
            found.split(".")[:3] == wanted.split(".")[:3],
            f"--target={target}: {package} is {found}, jaxlib {wanted}; "
            f"pip install {package}=={wanted}",
        )


def _present(name: str) -> Target:
    device = jax.local_devices()[0]
    platform = device.platform
    stats = device.memory_stats() or {}
    margin, least = _MARGINS.get(platform, _MARGINS["gpu"])
    cores = _cores()
    cpu = Speed(_CORE.flops * cores, _CORE.bandwidth, _CORE.latency)
    return Target(
        name=name,
        kind=device.device_kind,
        mesh=sharding.make_mesh,
        limit=stats.get("bytes_limit", host.available()),
        margin=margin,
        at_least=least,
        speed={"cpu": cpu, "tpu": _V5E}.get(platform, H100),
        on_host=platform == "cpu",
    )


def _cores() -> int:
    """Processors this process may use; macOS does not tell."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _described(
    name: str, devices: Sequence[jax.Device], limit: int, kind: str, speed: Speed
) -> Target:
    margin, least = _MARGINS[kind]

    def mesh(micro_batch: int) -> Mesh:
        return sharding.make_mesh(micro_batch, devices)

    return Target(name, devices[0].device_kind, mesh, limit, margin, least, speed, on_host=False)


def _text(fields: dict) -> str:
    """Protocol-buffer text format of nested numbers and quoted strings."""
    parts = [
        f"{name} {{ {_text(value)} }}" if isinstance(value, dict) else f"{name}: {value}"
        for name, value in fields.items()
    ]
    return " ".join(parts)
