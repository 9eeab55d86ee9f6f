# SPDX-License-Identifier: Apache-2.0
"""PTX to machine code, and where the programs for it are looked for."""

from dataclasses import replace
from pathlib import Path

import pytest
import toolchain
from inspect_tools import needs_machine_code
from kvq.errors import InvalidArgument, Unsupported
from kvq.inspect import machine_code, opcodes, sass, tools

SASS = Path(__file__).resolve().parent / "sass"
TILES = (SASS / "tiles.ptx").read_text(encoding="utf-8")
LOG = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'other' for 'sm_80'
ptxas info    : Function properties for other
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 20 registers, used 0 barriers, 376 bytes cmem[0]
ptxas info    : Compiling entry function 'k' for 'sm_80'
ptxas info    : Function properties for k
    56 bytes stack frame, 52 bytes spill stores, 68 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 4096 bytes smem, 376 bytes cmem[0]
ptxas info    : Compile time = 20.261 ms
"""


def test_log_of_ptxas():
    assert machine_code._resources(LOG, "k") == (168, 4096, 56, 120)
    assert machine_code._resources(LOG, "other") == (20, 0, 0, 0)
    with pytest.raises(InvalidArgument, match="ptxas -v says nothing of kernel 'third'"):
        machine_code._resources(LOG, "third")


def test_kernels_of_a_text():
    two = TILES + TILES.split(".address_size 64")[1].replace(" tiles(", " second(")
    assert machine_code.entries(two) == ["tiles", "second"] and machine_code.choose_kernel(two, "second") == "second"
    assert machine_code.choose_kernel(TILES, None) == "tiles"
    for ptx, kernel, message in (
        (two, None, "the PTX has several kernels, tiles, second: name one with --kernel"),
        (two, "third", "there is no kernel 'third' in the PTX: it has tiles, second"),
        ("// .visible .entry gone()\n", None, "the PTX has no kernel"),
        ("", "k", "it has none"),
    ):
        with pytest.raises(InvalidArgument, match=message):
            machine_code.choose_kernel(ptx, kernel)


def test_threads_of_a_block():
    assert machine_code.block_threads(TILES, "tiles") == 32
    assert machine_code.block_threads(TILES.replace(".reqntid 32, 1, 1", ".maxntid 64, 2"), "tiles") == 128
    assert machine_code.block_threads(TILES.replace(".reqntid 32, 1, 1", "// .reqntid 32"), "tiles") is None


@needs_machine_code
@pytest.mark.parametrize("target", ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"])
def test_every_target(target):
    code = machine_code.compile_ptx(TILES, "tiles", target)
    assert code.architecture == target and 10 < code.registers < 64 and (code.spill_bytes, code.shared_bytes) == (0, 0)
    assert code.compiler.startswith("ptxas V") and len(code.function.instructions) > 40
    lines = TILES.splitlines()
    products = [i.line for i in code.function.instructions if i.name == "HMMA"]
    assert len(products) == 2 and all("mma.sync" in lines[line - 1] for line in products)


@needs_machine_code
def test_spills_and_shared_memory():
    declared = TILES.replace("{\n  .reg", "{\n  .shared .align 16 .b8 tile[4096];\n  .reg", 1).replace(
        "  mov.u32 %r3, %tid.x;", "  mov.u32 %r3, %tid.x;\n  mov.u32 %r20, tile;\n  st.shared.u32 [%r20], %r3;", 1
    )
    assert machine_code.compile_ptx(declared, "tiles", "sm_80").shared_bytes == 4096
    values = range(40)
    squeezed = (
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n.maxnreg 24\n{\n"
        ".reg .b64 %rd<2>; .reg .b32 %r<48>;\nld.param.u64 %rd1, [p];\n"
        + "".join(f"ld.volatile.global.u32 %r{i}, [%rd1+{4 * i}];\n" for i in values)
        + "".join(f"st.volatile.global.u32 [%rd1+{4 * i}], %r{39 - i};\n" for i in values)
        + "ret;\n}\n"
    )
    code = machine_code.compile_ptx(squeezed, "k", "sm_80")
    assert code.registers <= 24 and code.spill_bytes > 0


@needs_machine_code
@toolchain.needs_toolkit
@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_120"])
@pytest.mark.parametrize("source", ["flash_decode", "gemm_s8", "quantize"])
def test_no_opcode_of_a_real_kernel_is_unknown(source, target):
    ptx = toolchain.ptx(source)
    for kernel in machine_code.entries(ptx):
        found = machine_code.compile_ptx(ptx, kernel, target).function.instructions
        assert {i.opcode for i in found if opcodes.cost_of(i).group == opcodes.UNKNOWN} == set()


@needs_machine_code
@toolchain.needs_toolkit
def test_line_information_changes_no_instruction(tmp_path):
    (tmp_path / "k.ptx").write_text(toolchain.ptx("flash_decode"), encoding="utf-8")
    tools.run("ptxas", ["-arch=sm_80", "-o", tmp_path / "k.cubin", tmp_path / "k.ptx"])
    plain = sass.parse(tools.run("nvdisasm", ["-c", tmp_path / "k.cubin"]).stdout)["flash_decode"]
    lines = machine_code.compile_ptx(toolchain.ptx("flash_decode"), "flash_decode", "sm_80").function
    assert plain.instructions == tuple(replace(i, line=None) for i in lines.instructions)
    assert {i.line for i in plain.instructions} == {None} and all(i.line for i in lines.instructions[:-9])


@needs_machine_code
def test_what_ptxas_refuses_is_passed_on():
    with pytest.raises(InvalidArgument, match=r"ptxas ended with \d+ and said: ptxas kernel\.ptx, line 24; error"):
        machine_code.compile_ptx(TILES.replace("setp.eq.u32 %p1", "frobnicate.u32 %p1"), "tiles", "sm_80")


def test_a_named_program_is_the_only_one(monkeypatch, tmp_path):
    monkeypatch.setenv("KVQ_NVDISASM", str(tmp_path / "nvdisasm"))
    with pytest.raises(InvalidArgument, match=r"KVQ_NVDISASM is .*nvdisasm, which is no program: name the file"):
        tools.find("nvdisasm")
    (tmp_path / "nvdisasm").write_text("#!/bin/sh\necho from here\n")
    (tmp_path / "nvdisasm").chmod(0o755)
    assert tools.run("nvdisasm", []).stdout == "from here\n"


def test_places_in_their_order(monkeypatch, tmp_path):
    for name in ("KVQ_NVDISASM", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tools.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(Unsupported, match="nvdisasm is not to be found: pip install nvidia-cuda-nvdisasm=="):
        tools.find("nvdisasm")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvdisasm").touch(0o755)
    assert tools.find("nvdisasm") == tmp_path / "bin/nvdisasm"


def test_advice_is_what_is_pinned():
    pinned = (Path(__file__).resolve().parents[2] / "python/requirements/cuda.txt").read_text(encoding="utf-8").split()
    for name in ("ptxas", "nvdisasm"):
        assert tools._PROGRAMS[name][2].removeprefix("pip install ") in pinned
