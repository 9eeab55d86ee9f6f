# SPDX-License-Identifier: Apache-2.0
"""Figures of architectures and of GPUs, each with where it comes from: what a prediction is made of.

Rates are peaks: of a clock that is not throttled, with nothing else in the way. Where NVIDIA publishes no figure for
what our kernels do (mma.sync on Hopper and on B200, the latency of a busy memory) the source begins with "assumed".
"""

from __future__ import annotations

from dataclasses import dataclass

from kvq.errors import InvalidArgument

KIB = 1024
GUIDE = "CUDA C++ Programming Guide 13.0, Compute Capabilities, technical specifications per compute capability"
ARITHMETIC = (
    "CUDA C++ Programming Guide 13.0, Arithmetic Instructions, throughput of native arithmetic instructions; pipes by "
    "Nsight Compute's Kernel Profiling Guide, Pipelines, and forums.developer.nvidia.com/t/302018 (halves in the pipe "
    "of FP32 from 8.6 on); halves by the peak FP16 rates without tensor cores of the whitepapers"
)


@dataclass(frozen=True)
class Architecture:
    """What all GPUs of a compute capability have in common. Rates are lanes a clock and multiprocessor."""

    name: str
    warps_per_sm: int
    blocks_per_sm: int
    shared_per_sm: int  # bytes
    shared_per_block: int  # after opting in
    fma: int  # FP32 multiply-adds
    half: int  # instructions of two halves
    half_in_fma: bool  # whether those take the pipe of FP32
    registers_per_sm: int = 65536
    registers_per_thread: int = 255
    threads_per_block: int = 1024
    alu: int = 64  # logic, integer addition, comparison, selection, byte permutation
    fmaheavy: int = 64  # integer multiply-adds, in the pipe of FP32
    xu: int = 16  # exp2, reciprocals, conversions between integers and floats
    lsu: int = 1  # wavefronts of 128 bytes: global, shared, shuffles
    issue: int = 4  # warp instructions
    source: str = f"{GUIDE}; {ARITHMETIC}"


@dataclass(frozen=True)
class Gpu:
    name: str
    architecture: str
    multiprocessors: int
    clock_mhz: int  # boost
    tensor: float  # multiply-adds of halves with FP32 sums a clock and multiprocessor, by mma.sync
    bandwidth_gb_s: float
    sources: dict[str, str]  # by field
    latency_ns: float = 800.0  # from a load to its data, while the memory is busy
    second_level_ns: float = 400.0  # the same where the second level has it


_ARCHITECTURES = (
    Architecture("sm_80", 64, 32, 164 * KIB, 163 * KIB, fma=64, half=128, half_in_fma=False),
    Architecture("sm_86", 48, 16, 100 * KIB, 99 * KIB, fma=128, half=64, half_in_fma=True),
    Architecture("sm_89", 48, 24, 100 * KIB, 99 * KIB, fma=128, half=64, half_in_fma=True),
    Architecture("sm_90", 64, 32, 228 * KIB, 227 * KIB, fma=128, half=128, half_in_fma=True),
    Architecture("sm_100", 64, 32, 228 * KIB, 227 * KIB, fma=128, half=128, half_in_fma=True),
    Architecture("sm_120", 48, 24, 100 * KIB, 99 * KIB, fma=128, half=64, half_in_fma=True),
)
ARCHITECTURES = {architecture.name: architecture for architecture in _ARCHITECTURES}

_LATENCY = "assumed: 800 ns under load on every GPU; NVIDIA publishes none"
_SECOND_LEVEL = (
    "assumed: half of latency_ns, as table 3 of pmc.ncbi.nlm.nih.gov/articles/PMC10448217 has 200 clock cycles for the "
    "second level of V100, A100 and H100 and 400 for their memory"
)
_HOPPER_MMA = (
    "peak of wgmma, 989.4 TFLOPS dense at 1830 MHz (NVIDIA H100 Tensor Core GPU Architecture), is 2048; assumed: "
    "mma.sync reaches 62 % of it (62.9 % on average in Luo et al., Benchmarking and Dissecting the Nvidia Hopper GPU "
    "Architecture, arXiv 2402.13499)"
)
_GPUS = (
    Gpu("A100", "sm_80", 108, 1410, 1024, 2039, {
        "multiprocessors": "NVIDIA A100 Tensor Core GPU Architecture",
        "clock_mhz": "the same",
        "tensor": "the same: 1024 FP16 FMA a clock and SM (312 TFLOPS dense)",
        "bandwidth_gb_s": "NVIDIA A100 datasheet, 80 GB SXM: 2,039 GB/s",
        "latency_ns": _LATENCY,
        "second_level_ns": _SECOND_LEVEL,
    }),
    Gpu("H100", "sm_90", 132, 1830, 2048 * 0.62, 3350, {
        "multiprocessors": "NVIDIA H100 Tensor Core GPU Architecture, SXM5",
        "clock_mhz": "the same: 1830 MHz is the boost clock of the tensor cores (1980 MHz without them)",
        "tensor": _HOPPER_MMA,
        "bandwidth_gb_s": "NVIDIA H100 datasheet, SXM: 3.35 TB/s",
        "latency_ns": _LATENCY,
        "second_level_ns": _SECOND_LEVEL,
    }),
    Gpu("H200", "sm_90", 132, 1830, 2048 * 0.62, 4800, {
        "multiprocessors": "the GH100 of H100 SXM5",
        "clock_mhz": "as H100: the datasheets give both the same FP16 rate, 1,979 TFLOPS with sparsity",
        "tensor": _HOPPER_MMA,
        "bandwidth_gb_s": "NVIDIA H200 datasheet: 4.8 TB/s",
        "latency_ns": _LATENCY,
        "second_level_ns": _SECOND_LEVEL,
    }),
    Gpu("RTX 4090", "sm_89", 128, 2520, 256, 1008, {
        "multiprocessors": "NVIDIA Ada GPU Architecture, GeForce RTX 4090",
        "clock_mhz": "the same",
        "tensor": "the same: 165.2 TFLOPS FP16 with FP32 sums, dense = 256 a clock and SM",
        "bandwidth_gb_s": "the same: 1008 GB/s",
        "latency_ns": _LATENCY,
        "second_level_ns": _SECOND_LEVEL,
    }),
    Gpu("L4", "sm_89", 58, 2040, 512, 300, {
        "multiprocessors": "NVIDIA L4 datasheet, 7,424 CUDA cores = 58 SMs of 128",
        "clock_mhz": "NVIDIA L4 product brief: 2040 MHz boost; at 72 W it is not held for long",
        "tensor": "NVIDIA L4 datasheet: 242 TFLOPS FP16 with sparsity = 512 a clock and SM dense",
        "bandwidth_gb_s": "NVIDIA L4 datasheet: 300 GB/s",
        "latency_ns": _LATENCY,
        "second_level_ns": _SECOND_LEVEL,
    }),
    Gpu("B200", "sm_100", 148, 1860, 1024, 8000, {
        "multiprocessors": "148 SMs: hmc-tech.com/gpus/nvidia-b200-vs-nvidia-b100",
        "clock_mhz": "tensor clock, the same page; 2.25 PFLOPS dense FP16 (NVIDIA DGX B200 datasheet) at 4096 a clock",
        "tensor": "assumed: mma.sync as fast as on A100; the 2.25 PFLOPS are those of tcgen05.mma",
        "bandwidth_gb_s": "NVIDIA DGX B200 datasheet: 8 TB/s, 64 of 8 GPUs",
        "latency_ns": _LATENCY,
        "second_level_ns": _SECOND_LEVEL,
    }),
    Gpu("RTX 5090", "sm_120", 170, 2407, 256, 1792, {
        "multiprocessors": "NVIDIA RTX Blackwell GPU Architecture, GeForce RTX 5090",
        "clock_mhz": "the same",
        "tensor": "the same: 209.5 TFLOPS FP16 with FP32 sums, dense = 256 a clock and SM",
        "bandwidth_gb_s": "the same: 1792 GB/s",
        "latency_ns": _LATENCY,
        "second_level_ns": _SECOND_LEVEL,
    }),
)  # fmt: skip
GPUS = {gpu.name: gpu for gpu in _GPUS}


def architecture_of(target: str) -> Architecture:
    """By `nvptx:sm_80`, whatever the form of its kernels (`+magic`)."""
    name = target.removeprefix("nvptx:").removesuffix("+magic")
    if not target.startswith("nvptx:") or name not in ARCHITECTURES:
        known = ", ".join(f"nvptx:{known}" for known in ARCHITECTURES)
        raise InvalidArgument(f"there is no target '{target}': use one of {known}")
    return ARCHITECTURES[name]


def gpu_of(name: str, target: str | None = None) -> Gpu:
    """By its name in the table, whatever its case; of a target, if one is given, that it runs."""
    able = GPUS.values() if target is None else gpus_of(architecture_of(target).name)
    found = [gpu for gpu in able if gpu.name.lower() == name.lower()]
    if not found:
        where = "" if target is None else f" that runs {target}"
        raise InvalidArgument(f"there is no GPU '{name}'{where}: use one of {', '.join(gpu.name for gpu in able)}")
    return found[0]


def gpus_of(architecture: str) -> list[Gpu]:
    """Those of the table that code for the architecture runs on: its own, and later ones."""
    number = int(architecture.removeprefix("sm_"))
    return [gpu for gpu in GPUS.values() if int(gpu.architecture.removeprefix("sm_")) >= number]
