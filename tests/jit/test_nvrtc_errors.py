# SPDX-License-Identifier: Apache-2.0
"""What NVRTC refuses comes back as a sentence with kernel, line of the PTX and text; and where the library is found."""

import subprocess
import sys

import pytest

import nvrtc_env
import sim_env

pytestmark = nvrtc_env.needs_nvrtc


def refused(tmp_path, ptx, arch="sm_80", *registers):
    path = tmp_path / "kernel.ptx"
    path.write_text(ptx, encoding="utf-8")
    return nvrtc_env.refusal("compile", path, arch, tmp_path, *registers)


def with_line(instruction):
    return sim_env.ADD.replace("add.f32 %f3, %f2, %f1;", instruction)


LINE = 1 + sim_env.ADD[:sim_env.ADD.index("add.f32 %f3")].count("\n")


@pytest.mark.parametrize("instruction, said", (
    ("foo.bar %f3, %f2;", "Not a name of any known instruction: 'foo'"),
    ("add.f32 %f3, %f2;", "Arguments mismatch for instruction 'add'"),
    ("add.f32 %f3, %f2, %g1;", "Unknown symbol '%g1'"),
    ("add.f32 %f3, %f2, %f1", "syntax error"),
    ("bra NOWHERE;", "NOWHERE"),
    ("cp.async.bulk.wait_group 0;", "sm_90"),
))
def test_an_error_names_kernel_line_and_text(tmp_path, instruction, said):
    error = refused(tmp_path, with_line(instruction))
    assert error.startswith("kernel add cannot be compiled for sm_80: line "), error
    assert said in error
    # A missing semicolon shows at the next token.
    line = LINE + (said == "syntax error")
    text = with_line(instruction).splitlines()[line - 1].strip()
    assert f"line {line} of the PTX ('{text}')" in error, error


def test_comments_and_variables_do_not_move_lines(tmp_path):
    ptx = with_line("/* one\n two */ foo.bar %f3;").replace(
        ".visible .entry", ".extern .shared .align 16 .b8 memory[];\n.shared .b32 used;\n.visible .entry").replace(
        "mov.u32 %r2, %ctaid.x;", "mov.u64 %rd3, memory; mov.u64 %rd3, used; mov.u32 %r2, %ctaid.x;")
    line = 1 + ptx[:ptx.index("foo.bar")].count("\n")
    assert f"line {line} of the PTX ('two */ foo.bar %f3;')" in refused(tmp_path, ptx)


def test_an_error_in_a_function_names_the_call(tmp_path):
    ptx = sim_env.ADD.replace(".visible .entry", ".func f() { foo.bar; ret; }\n.visible .entry").replace(
        "add.f32 %f3, %f2, %f1;", "call f;")
    error = refused(tmp_path, ptx)
    assert f"line {LINE + 1} of the PTX ('call f;')" in error and "'foo'" in error, error


def test_newer_ptx_is_named_where_it_fails(tmp_path):
    error = refused(tmp_path, with_line("foo.bar;").replace(".version 7.8", ".version 99.1"))
    assert f"it has version 99.1, and NVRTC {nvrtc_env.version()} knows PTX up to " in error, error


def test_too_few_registers_are_a_sentence(tmp_path):
    wide = " ".join(f"ld.global.v4.f32 {{%a{4 * i}, %a{4 * i + 1}, %a{4 * i + 2}, %a{4 * i + 3}}}, [%rd6+{16 * i}];"
                    for i in range(16))
    uses = " ".join(f"add.f32 %f3, %f3, %a{i};" for i in reversed(range(64)))
    ptx = with_line(f".reg .f32 %a<64>; {wide} mov.f32 %f3, %f1; {uses}")
    code, _, error = nvrtc_env.run("compile", write(tmp_path, ptx), "sm_80", tmp_path, 8)
    # Spilling is as good an answer as a refusal; a refusal is one sentence about registers.
    assert code == 0 or ("kernel add" in error and "egister" in error and "\n" not in error), error


def write(tmp_path, ptx):
    path = tmp_path / "kernel.ptx"
    path.write_text(ptx, encoding="utf-8")
    return path


def test_architectures(tmp_path):
    assert "does not compile for sm_70: use one of sm_75, sm_80" in refused(tmp_path, sim_env.ADD, "sm_70")
    assert "'80' is no architecture of a GPU" in refused(tmp_path, sim_env.ADD, "80")
    newer = sim_env.ADD.replace(".target sm_80", ".target sm_90a")
    assert "the PTX is for sm_90a and cannot be compiled for sm_90" in refused(tmp_path, newer, "sm_90")
    nvrtc_env.compile_ptx(write(tmp_path, newer), ["sm_90a"], tmp_path)


@pytest.mark.parametrize("way", ("VIRTUAL_ENV", "the program's environment"))
def test_the_wheel_of_an_environment_is_found(tmp_path, way):
    env = tmp_path / "env"
    packages = env / "lib" / f"python3.{sys.version_info.minor}" / "site-packages/nvidia/cu13"
    packages.mkdir(parents=True)
    (packages / "lib").symlink_to(nvrtc_env.folder())
    variables, tool = {"VIRTUAL_ENV": str(env)}, nvrtc_env.TOOL
    if way != "VIRTUAL_ENV":
        # As .venv/bin/python is: a link out of the environment, called by its own name.
        (env / "bin").mkdir()
        (env / "pyvenv.cfg").touch()
        tool = env / "bin/python"
        tool.symlink_to(nvrtc_env.TOOL)
        variables = {}
    done = subprocess.run([tool, "version"], env=nvrtc_env.environment(**variables), capture_output=True, text=True,
                          check=True)
    assert done.stdout.split() == [nvrtc_env.version(), str(packages / "lib/libnvrtc.so.13")]
    done = subprocess.run([tool, "compile", write(tmp_path, sim_env.ADD), "sm_80", tmp_path],
                          env=nvrtc_env.environment(**variables), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_library_without_its_second_half_is_refused(tmp_path):
    (tmp_path / "libnvrtc.so.13").symlink_to(nvrtc_env.folder() / "libnvrtc.so.13")
    error = nvrtc_env.refusal("version", env=nvrtc_env.environment(KVQ_NVRTC=str(tmp_path / "libnvrtc.so.13")))
    assert f"libnvrtc-builtins.so.{nvrtc_env.version()} is missing beside" in error
