# SPDX-License-Identifier: Apache-2.0
"""What a kernel becomes for one architecture: registers, spills, shared memory, machine code.

ptxas and nvdisasm are known here alone: whatever else compiles PTX gives the same `MachineCode`.
"""

from __future__ import annotations

import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kvq.errors import InvalidArgument
from kvq.inspect import sass, tools
from kvq.inspect.occupancy import WARP

_ENTRY = re.compile(r"\.entry\s+([\w$]+)")
_THREADS = re.compile(r"\.(?:req|max)ntid\s+([\d\s,]+)")
_COMPILED = re.compile(r"Compiling entry function '([^']+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+)(?:\+\d+)? bytes smem")


@dataclass(frozen=True)
class MachineCode:
    architecture: str
    registers: int
    shared_bytes: int  # static
    stack_bytes: int
    spill_bytes: int  # stores and loads
    function: sass.Function
    compiler: str


def entries(ptx: str) -> list[str]:
    """Names of the kernels of a PTX text."""
    return _ENTRY.findall(_without_comments(ptx))


def choose_kernel(ptx: str, kernel: str | None) -> str:
    names = entries(ptx)
    if kernel is not None and kernel not in names:
        raise InvalidArgument(f"there is no kernel '{kernel}' in the PTX: it has {', '.join(names) or 'none'}")
    if kernel is None and len(names) != 1:
        several = f"the PTX has several kernels, {', '.join(names)}: name one with --kernel"
        raise InvalidArgument(several if names else "the PTX has no kernel")
    return kernel or names[0]


def block_threads(ptx: str, kernel: str) -> int | None:
    """Threads of a block by .reqntid or .maxntid; None: the text does not say."""
    shape = block_shape(ptx, kernel)
    return None if shape is None else math.prod(shape)


def of_programs(ptx: str, programs: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Grid and block of a launch of so many programs of a kernel of ours (kernel_abi.h)."""
    block = block_shape(ptx, choose_kernel(ptx, None))
    if block is None:
        raise InvalidArgument("the PTX does not say how many threads a block has (.reqntid): it is no kernel of kvq")
    return (-(-programs * WARP // block[0]),), block


def block_shape(ptx: str, kernel: str) -> tuple[int, ...] | None:
    text = _without_comments(ptx)
    header = re.search(r"\.entry\s+" + re.escape(kernel) + r"\b(.*?)\{", text, re.DOTALL)
    found = _THREADS.search(header[1]) if header else None
    return tuple(int(size) for size in found[1].split(",")) if found else None


def compile_ptx(ptx: str, kernel: str, architecture: str) -> MachineCode:
    with tempfile.TemporaryDirectory(prefix="kvq-inspect-") as name:
        folder = Path(name)
        (folder / "kernel.ptx").write_text(ptx, encoding="utf-8")
        options = ["-v", "-lineinfo", f"-arch={architecture}", "-o", "kernel.cubin", "kernel.ptx"]
        log = tools.run("ptxas", options, folder=folder)
        text = tools.run("nvdisasm", ["-c", "-gp", "kernel.cubin"], folder=folder).stdout
    functions = sass.parse(text)
    if kernel not in functions:
        raise InvalidArgument(f"the machine code has no kernel '{kernel}': it has {', '.join(functions)}")
    version = re.search(r"V[\d.]+", tools.run("ptxas", ["--version"]).stdout)
    compiler = f"ptxas {version[0] if version else '?'}"
    return MachineCode(architecture, *_resources(log.stderr + log.stdout, kernel), functions[kernel], compiler)


def _resources(log: str, kernel: str) -> tuple[int, int, int, int]:
    """Registers, bytes of static shared memory, of the stack, and of spills, from what ptxas -v says of the kernel."""
    name = ""
    for part in re.split(r"(?=ptxas info\s+: Compiling entry function)", log):
        if match := _COMPILED.search(part):
            name = match[1]
        if name == kernel and (used := _USED.search(part)):
            spills, shared = _SPILLS.search(part), _SHARED.search(part)
            stack, stores, loads = map(int, spills.groups()) if spills else (0, 0, 0)
            return int(used[1]), int(shared[1]) if shared else 0, stack, stores + loads
    raise InvalidArgument(f"ptxas -v says nothing of kernel '{kernel}': its log is in a form that is not known")


def _without_comments(ptx: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", " ", ptx, flags=re.DOTALL)
