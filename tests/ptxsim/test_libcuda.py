# SPDX-License-Identifier: Apache-2.0
"""The look-alike of CUDA's driver: what it answers, what it prints, and that it is shipped nowhere."""
import json
import os
import pathlib
import subprocess
import sys

import pytest

import driver_probes
from sim_env import BUILD, DRIVER, ROOT

PROBES = pathlib.Path(driver_probes.__file__)
# By probe; written from the driver's documentation, or recorded on a GPU (driver_probes.py says how).
ANSWERS = json.loads((PROBES.parent / "golden" / "driver_answers.json").read_text())


def run(*arguments, **settings):
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("KVQ_PTXSIM_")},
                   "LD_LIBRARY_PATH": str(DRIVER), **settings}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120,
                          env=environment)


@pytest.fixture(scope="module")
def answered():
    ran = run(PROBES, KVQ_PTXSIM_ARCH="sm_90")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout), ran.stderr


@pytest.mark.parametrize("probe", driver_probes.PROBES)
def test_answers(answered, probe):
    assert answered[0][probe] == ANSWERS[probe]


def test_findings_are_printed_once(answered):
    lines = [line for line in answered[1].splitlines() if line.startswith("ptxsim: ")]
    assert len(lines) == 3  # of the probes that fail: an illegal address, a misaligned one, a trap
    assert "bounds: store of 4 bytes at offset 400" in lines[0] and "align" in lines[1] and "trap" in lines[2]


CLIENT = f"""
import sys
sys.path.insert(0, {str(PROBES.parent)!r})
from driver_probes import *
"""


def client(text, **settings):
    ran = run("-c", CLIENT + text, **settings)
    assert ran.returncode == 0, ran.stderr
    return ran


def test_work_is_late():
    """What was handed in is not there before somebody waits, and what relies on no event is not ordered."""
    out = client("""
api = Api()
module, pinned, pointer = api.module(), c_void_p(), api.buffer(128)
store, stream, other = api.function("store", module), api.stream(1), api.stream(1)
api.ok("cuMemAllocHost_v2", byref(pinned), c_size_t(128))
words = (c_uint * 32).from_address(pinned.value)
words[:] = range(32)
api.ok("cuMemcpyHtoDAsync_v2", pointer, pinned, c_size_t(128), stream)
words[:] = [9] * 32
api.ok("cuStreamSynchronize", stream)
print(api.words(pointer, 2))  # what the memory held when the copy was done, not when it was handed in
api.ok(*api.launch(store, (pointer, c_uint(5), c_uint(32)), stream=stream))
api.ok("cuMemcpyDtoHAsync_v2", pinned, pointer, c_size_t(128), stream)
print(words[1], api("cuStreamQuery", stream), api("cuStreamQuery", stream), words[1])
api.ok(*api.launch(store, (pointer, c_uint(70), c_uint(32)), stream=stream))
api.ok("cuMemcpyDtoHAsync_v2", pinned, pointer, c_size_t(128), other)
api.ok("cuStreamSynchronize", other)
print(words[1])
""").stdout
    assert out.splitlines() == ["[9, 9]", "9 600 0 6", "6"]


def test_constants_from_the_host():
    """cudaMemcpyToSymbol of a __constant__ variable: the address of cuModuleGetGlobal is the host's to write."""
    out = client("""
api = Api()
module = api.module(HEAD + ".const .align 4 .b32 factor[2] = {3, 5};" + '''
.visible .entry k(.param .u64 to)
{
  .reg .b32 %r<2>; .reg .b64 %a;
  ld.param.u64 %a, [to];
  ld.const.u32 %r1, [factor+4];
  st.global.u32 [%a], %r1;
  ret;
}''')
factor, size, to, new = c_uint64(), c_size_t(), api.buffer(4), (c_uint * 2)(7, 9)
api.ok("cuModuleGetGlobal_v2", byref(factor), byref(size), module, c_char_p(b"factor"))
api.ok(*api.launch(api.function("k", module), (to,), block=(1, 1, 1)))
print(size.value, api.words(factor, 2), api.words(to, 1))
api.ok("cuMemcpyHtoD_v2", factor, new, size)
api.ok(*api.launch(api.function("k", module), (to,), block=(1, 1, 1)))
print(api.words(to, 1))
""").stdout
    assert out.splitlines() == ["8 [3, 5] [5]", "[9]"]


def test_settings():
    text = """
api = Api()
name, value = ctypes.create_string_buffer(64), c_int()
api.ok("cuDeviceGetName", name, c_int(64), c_int(0))
api.ok("cuDeviceGetAttribute", byref(value), c_int(97), c_int(0))
free, total = c_size_t(), c_size_t()
api.ok("cuMemGetInfo_v2", byref(free), byref(total))
print(name.value.decode(), value.value, total.value, api("cuMemAlloc_v2", byref(c_uint64()), c_size_t(total.value + 1)))
"""
    assert client(text, KVQ_PTXSIM_ARCH="sm_86", KVQ_PTXSIM_MEMORY=str(1 << 24)).stdout == \
        f"ptxsim sm_86 {99 << 10} {1 << 24} 2\n"
    for name, value in (("ARCH", "sm_70"), ("CHECKS", "bond"), ("SEED", "x"), ("MEMORY", "1"), ("MMA", "fast")):
        ran = run("-c", CLIENT + "print(Api(False, False)('cuInit', c_uint(0)))", **{f"KVQ_PTXSIM_{name}": value})
        assert ran.stdout == "1\n" and f"KVQ_PTXSIM_{name}: " in ran.stderr and ran.stderr.count("\n") == 1


def test_checks_can_be_left_out():
    out = client("""
api = Api()
api.ok(*api.launch(api.function("twice"), (api.buffer(128),)))
print(api("cuCtxSynchronize"))
api.ok(*api.launch(api.function("twice"), (api.buffer(128),)))
""", KVQ_PTXSIM_CHECKS="-uninit-memory")
    assert (out.stdout, out.stderr) == ("0\n", "")


def test_time_out():
    out = client("""
api = Api()
api.ok(*api.launch(api.function("k", api.module(HEAD + ".visible .entry k() { AGAIN: bra AGAIN; }"))))
print(api("cuCtxSynchronize"), api("cuCtxSynchronize"))
""", KVQ_PTXSIM_LIMIT="1000")
    assert out.stdout == "702 702\n" and out.stderr.startswith("ptxsim: kernel k: ")


def test_reports(tmp_path):
    client("""
api = Api()
for _ in range(2):
    api.ok(*api.launch(api.function("small")))
api.ok("cuCtxSynchronize")
""", KVQ_PTXSIM_REPORT=str(tmp_path / "reports"))
    decoder, text, count = json.JSONDecoder(), (tmp_path / "reports").read_text(), 0
    while text:
        report, end = decoder.raw_decode(text)
        assert report["status"] == "ok" and report["kernel"] == "small"
        text, count = text[end:].lstrip(), count + 1
    assert count == 2


def test_a_new_context_forgets_a_failure():
    out = client("""
api = Api()
api.ok(*api.launch(api.function("trapping")))
print(api("cuCtxSynchronize"), api("cuMemAlloc_v2", byref(c_uint64()), c_size_t(4)),
      api("cuDevicePrimaryCtxRelease_v2", c_int(0)), api("cuCtxSynchronize"))
api.ok("cuDevicePrimaryCtxRetain", byref(api.context), c_int(0))
api.ok("cuCtxSetCurrent", api.context)
print(api("cuCtxSynchronize"))
""").stdout
    assert out == "719 719 0 709\n0\n"


def test_the_log_tells_why():
    out = client("""
api = Api()
log, module = ctypes.create_string_buffer(256), c_void_p()
options, values = (c_int * 2)(5, 6), (c_void_p * 2)(ctypes.cast(log, c_void_p), c_void_p(256))
text = HEAD + ".visible .entry k() {\\n frobnicate.b32 1;\\n}"
print(api("cuModuleLoadDataEx", byref(module), c_char_p(text.encode()), c_uint(2), options, values), values[1])
print(log.value.decode())
""").stdout.splitlines()
    assert out[0] == f"218 {len(out[1])}" and out[1].startswith("ptx input:5: ") and "frobnicate" in out[1]


def test_it_is_never_installed():
    """No install rule of the build tree names the simulator or what is built from it."""
    scripts = list(BUILD.rglob("cmake_install.cmake"))
    assert scripts
    for script in scripts:
        for line in script.read_text().splitlines():
            if "TYPE" in line or "FILES" in line:
                assert "ptxsim" not in line and "libcuda" not in line and "ptx-run" not in line, f"{script}: {line}"
    assert not [p for p in (ROOT / "python").rglob("*") if "libcuda" in p.name or "ptxsim" in p.suffixes]
