# SPDX-License-Identifier: Apache-2.0
"""What a kernel for NVIDIA GPUs costs, found without one: `kvq inspect kernel` (docs/nvidia.md).

    sass, graph, steady     machine code, its loops, the one that counts
    opcodes                 classes of instructions and their pipes
    machine_code, tools     PTX to machine code, by programs that are looked for
    workload, arguments     counters of the PTX simulator, and what it is run with
    requests, attend        built-in kernels, and launches of those of attention
    in_flight               what a warp has asked for when it waits
    gpus, occupancy, model  figures of GPUs, blocks that fit, predicted times
    report, text            all of it as one JSON object, and for reading
"""

from kvq.inspect.report import inspect_kernel

__all__ = ["inspect_kernel"]
