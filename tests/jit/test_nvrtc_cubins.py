# SPDX-License-Identifier: Apache-2.0
"""PTX that compilers made becomes, through NVRTC, the machine code that ptxas makes of it."""

import json
from pathlib import Path

import pytest

import cubin
import nvrtc_env
import toolchain

pytestmark = [toolchain.needs_toolkit, nvrtc_env.needs_nvrtc]

SOURCES = sorted(path.stem for path in toolchain.KERNELS.glob("*.cu"))
OPTIMIZED = (toolchain.PLAIN, toolchain.Variant("clang", "O3"))
COMPARED = ("registers", "barriers", "frame", "stack", "shared", "spill_stores", "spill_loads")


@pytest.mark.parametrize("variant", OPTIMIZED, ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_machine_code_is_that_of_ptxas(tmp_path, source, variant):
    path = nvrtc_env.text_file(tmp_path, source, variant)
    if nvrtc_env.version() != nvrtc_env.ptxas_version():
        pytest.skip(f"NVRTC is {nvrtc_env.version()} and ptxas {nvrtc_env.ptxas_version()}")
    compiled = nvrtc_env.compile_ptx(path, nvrtc_env.ARCHS, tmp_path)
    for arch in nvrtc_env.ARCHS:
        said = nvrtc_env.ptxas(path, arch, tmp_path / "ptxas.cubin")
        code = cubin.kernels((tmp_path / "ptxas.cubin").read_bytes())
        assert said.keys() == {kernel for kernel, of in compiled if of == arch}
        for kernel, numbers in said.items():
            ours = compiled[kernel, arch]
            assert {name: ours[name] for name in COMPARED} == {name: numbers[name] for name in COMPARED}, (kernel, arch)
            assert ours["processor"] == int(arch[3:])
            assert ours["spill_stores"] == ours["spill_loads"] == 0
            mine = cubin.kernels(Path(ours["file"]).read_bytes())
            assert ours["code"] == len(mine[kernel]) and mine[kernel] == code[kernel], (kernel, arch)


@pytest.mark.parametrize("variant", [v for v in toolchain.VARIANTS if v not in OPTIMIZED], ids=str)
@pytest.mark.parametrize("source", SOURCES)
def test_every_compiler_and_level_is_taken(tmp_path, source, variant):
    compiled = nvrtc_env.compile_ptx(nvrtc_env.text_file(tmp_path, source, variant), [variant.processor], tmp_path)
    for entry in compiled.values():
        assert entry["code"] > 0 and entry["registers"] > 0
        assert entry["spill_stores"] == entry["spill_loads"] == 0


def test_parameters_and_threads_are_read(tmp_path):
    path = nvrtc_env.text_file(tmp_path, "flash_decode", toolchain.PLAIN)
    entry, = nvrtc_env.compile_ptx(path, ["sm_90"], tmp_path).values()
    assert entry["parameters"][0] == [0, 8] and entry["parameters"][-1][1] > 8
    last = entry["parameters"][-1]
    assert entry["parameter_bytes"] == sum(last)
    assert f".maxntid {entry['threads']}" in path.read_text(encoding="utf-8")


def test_same_input_gives_same_bytes(tmp_path):
    path = nvrtc_env.text_file(tmp_path, "flash_decode", toolchain.PLAIN)
    files = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        entry, = nvrtc_env.compile_ptx(path, ["sm_90"], tmp_path / run).values()
        files.append(Path(entry["file"]).read_bytes())
    assert files[0] == files[1]
    nvrtc_env.run_well("threads", path, "flash_decode", "sm_80", 4)


def test_fewer_registers_spill_and_are_counted(tmp_path):
    path = nvrtc_env.text_file(tmp_path, "flash_decode", toolchain.PLAIN)
    entry, = nvrtc_env.compile_ptx(path, ["sm_80"], tmp_path, registers=32).values()
    assert entry["registers"] <= 32
    assert entry["spill_stores"] > 0 and entry["spill_loads"] > 0 and entry["frame"] > 0


def test_a_real_cubin_may_be_damaged(tmp_path):
    path = nvrtc_env.text_file(tmp_path, "transpose", toolchain.PLAIN)
    for arch in ("sm_80", "sm_90", "sm_120"):
        entry, = nvrtc_env.compile_ptx(path, [arch], tmp_path).values()
        damaged = json.loads(nvrtc_env.run_well("damage", entry["file"]))
        sections = Path(entry["file"]).read_bytes()
        # Program headers stand behind the table of sections, and a file without them is whole as far as it is read.
        count = int.from_bytes(sections[60:62], "little")
        end = int.from_bytes(sections[40:48], "little") + 64 * count
        assert damaged["truncated"] >= end
        assert damaged["changed"] > 100


def test_the_store_keeps_cubins(tmp_path):
    path = nvrtc_env.text_file(tmp_path, "transpose", toolchain.PLAIN)
    outs = [nvrtc_env.run_well("store", tmp_path / "store", path, "transpose", arch).splitlines()
            for arch in ("sm_80", "sm_80", "sm_90")]
    assert [out[0] for out in outs] == ["compiled", "store", "compiled"]
    assert outs[0][1] == outs[1][1]


def test_variables_of_every_kind(tmp_path):
    """Where they stand and what they hold is what ptxas makes of the module."""
    ptx = """.version 7.0
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 dynamic[];
.shared .align 4 .b32 tile[32];
.const .align 4 .u32 table[4] = {10, 20, 30, 40};
.global .align 4 .u32 counter = 5;
.global .align 8 .u64 pointer = counter;
.visible .global .align 4 .u32 shown[2] = {7, 8};
.visible .const .align 4 .f32 scale = 0f40000000;
.visible .entry k(.param .u64 out, .param .align 8 .b8 pair[16])
.maxntid 32
{
  .reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .f32 %f<4>;
  ld.param.u64 %rd1, [out];
  mov.u32 %r1, %tid.x;
  mul.wide.u32 %rd2, %r1, 4;
  add.u64 %rd1, %rd1, %rd2;
  mov.u64 %rd3, tile; add.u64 %rd4, %rd3, %rd2; st.shared.u32 [%rd4], %r1;
  mov.u64 %rd5, dynamic; add.u64 %rd6, %rd5, %rd2; st.shared.u32 [%rd6], 1000;
  bar.sync 0;
  ld.shared.u32 %r3, [%rd4+4]; ld.shared.u32 %r4, [%rd6+4];
  mov.u64 %rd11, table; add.u64 %rd11, %rd11, %rd2; ld.const.u32 %r6, [%rd11];
  ld.global.u64 %rd12, [pointer]; ld.global.u32 %r7, [%rd12];
  mov.u64 %rd14, shown; add.u64 %rd14, %rd14, %rd2; ld.global.u32 %r9, [%rd14];
  ld.const.f32 %f1, [scale]; cvt.rzi.u32.f32 %r10, %f1;
  ld.param.u32 %r11, [pair+8];
  add.u32 %r12, %r3, %r4; add.u32 %r12, %r12, %r6; add.u32 %r12, %r12, %r7; add.u32 %r12, %r12, %r9;
  add.u32 %r12, %r12, %r10; add.u32 %r12, %r12, %r11;
  st.global.u32 [%rd1], %r12;
  ret;
}
"""
    path = tmp_path / "variables.ptx"
    path.write_text(ptx, encoding="utf-8")
    for arch in ("sm_80", "sm_90", "sm_120"):
        entry, = nvrtc_env.compile_ptx(path, [arch], tmp_path).values()
        said = nvrtc_env.ptxas(path, arch, tmp_path / "ptxas.cubin")["k"]
        assert {name: entry[name] for name in COMPARED} == {name: said[name] for name in COMPARED}
        ours = dict(cubin.sections(Path(entry["file"]).read_bytes()))
        theirs = dict(cubin.sections((tmp_path / "ptxas.cubin").read_bytes()))
        assert entry["code"] == len(theirs[".text.k"]) and entry["shared"] == 128
        # The order of variables is the compiler's own.
        for section in (".nv.constant3", ".nv.global.init"):
            assert sorted(words(ours[section])) == sorted(words(theirs[section])), (arch, section)


def words(content):
    return [content[at:at + 4] for at in range(0, len(content), 4)]
