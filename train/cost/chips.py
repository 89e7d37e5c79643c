"""Peak rates of accelerators, for utilisation and rooflines, from their makers' data sheets."""

from typing import NamedTuple


class Chip(NamedTuple):
    """One device, as JAX counts devices."""

    flops: float
    """bfloat16 operations per second in matrix products, without sparsity."""
    memory: float
    """Bytes of high-bandwidth memory."""
    bandwidth: float
    """Bytes per second between the chip and that memory."""
    interconnect: float
    """Bytes per second that a chip sends in one direction, over all its links together (ICI, NVLink)."""


CHIPS = {
    # Google Cloud's TPU pages, where the interconnect is given in Gbit/s, or in both directions together.
    "TPU v4": Chip(275e12, 32e9, 1.228e12, 2400e9 / 8),
    "TPU v5 lite": Chip(197e12, 16e9, 0.819e12, 1600e9 / 8),  # v5e
    "TPU v5": Chip(459e12, 95e9, 2.765e12, 4800e9 / 8),  # v5p
    "TPU v6 lite": Chip(918e12, 32e9, 1.64e12, 3584e9 / 8),  # v6e
    # NVIDIA's data sheets, which give NVLink and PCIe in both directions together.
    "NVIDIA A100-SXM4-40GB": Chip(312e12, 40e9, 1.555e12, 600e9 / 2),
    "NVIDIA A100-SXM4-80GB": Chip(312e12, 80e9, 2.039e12, 600e9 / 2),
    "NVIDIA L4": Chip(121e12, 24e9, 0.3e12, 64e9 / 2),
    "NVIDIA L40S": Chip(362e12, 48e9, 0.864e12, 64e9 / 2),
    "NVIDIA H100 80GB HBM3": Chip(989e12, 80e9, 3.35e12, 900e9 / 2),
    "NVIDIA H100 PCIe": Chip(756e12, 80e9, 2e12, 600e9 / 2),
    "NVIDIA H200": Chip(989e12, 141e9, 4.8e12, 900e9 / 2),
}
"""By `jax.Device.device_kind`."""

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84978434048 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 13 minor: 0 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""Description of an H100 for XLA's compiler on a machine without one."""
