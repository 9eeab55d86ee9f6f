# SPDX-License-Identifier: Apache-2.0
"""Device "cuda" over the simulator's look-alike of the driver, in processes of its own: the loader looks for the driver
when a process first asks for it. What it does without a driver, and which GPU and level it takes."""
import ctypes
import os
import pathlib
import subprocess
import sys
import xml.etree.ElementTree

import pytest

import kvq
from kvq.lowlevel import Context
from sim_env import ADD, DRIVER, HEAD

TESTS = pathlib.Path(__file__).resolve().parents[1]


def run(*arguments, **settings):
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith(("KVQ_PTXSIM_", "KVQ_CUDA_"))},
                   "LD_LIBRARY_PATH": str(DRIVER), **settings}
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env=environment)


def client(text, **settings):
    """The lines that a program prints."""
    prelude = f"ADD, HEAD = {ADD!r}, {HEAD!r}\nimport kvq\nfrom kvq.lowlevel import Context, compile\n"
    tail = "\nexcept kvq.Error as error:\n    print(type(error).__name__, error)\n"
    ran = run("-c", prelude + "try:\n" + "".join(f"    {line}\n" for line in text.splitlines()) + tail, **settings)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()


def test_what_every_device_does(tmp_path):
    """All of test_device.py, but what is about the other device."""
    report = tmp_path / "report.xml"
    ran = run("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", TESTS / "ptxsim" / "test_device.py",
              KVQ_TEST_ACCELERATOR="cuda")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    cases = list(xml.etree.ElementTree.parse(report).getroot().iter("testcase"))
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    assert skipped == ["test_levels", "test_a_missing_simulator"] and len(cases) - len(skipped) >= 9


@pytest.mark.parametrize("file, some", [
    ("conformance/test_nvptx_shapes.py", "kivi-2 or any-frontier or sm_120"),
    ("conformance/test_nvptx_cases.py", "where_pages_lie or exact-exact-2 or finding or test_modes_of_order"),
    ("e2e/test_three_devices.py", "accelerator and (0 or lives_as_the_reference and k4c32 and w32)"),
    ("e2e/test_device_cache.py", ""),
    ("e2e/test_score_functions.py", "cuda-cuda-alibi or both and cuda"),
])
def test_what_the_simulator_conforms_to_runs_on_a_gpu(tmp_path, file, some):
    """As ./dev test --gpu runs it. What is about the simulator, or for newer GPUs, is skipped."""
    report = tmp_path / "report.xml"
    ran = run("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", TESTS / file, "-k", some,
              KVQ_TEST_ACCELERATOR="cuda")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    cases = list(xml.etree.ElementTree.parse(report).getroot().iter("testcase"))
    assert sum(case.find("skipped") is None for case in cases) >= 2


@pytest.mark.parametrize("arch, level", [("sm_80", "sm_80"), ("sm_86", "sm_86"), ("sm_87", "sm_86"), ("sm_89", "sm_89"),
                                         ("sm_90", "sm_90"), ("sm_100", "sm_100"), ("sm_120", "sm_120")])
def test_the_level_is_the_gpus(arch, level):
    out = client("context = Context('cuda')\nprint(context.level, context.levels[-1], context.description)",
                 KVQ_PTXSIM_ARCH=arch)
    capability = f"{arch[3:-1]}.{arch[-1]}"
    assert out == [f"nvptx:{level} nvptx:{level} ptxsim {arch}, compute capability {capability}, 8192 MiB, driver for "
                   "CUDA 13.0"]


def test_other_levels():
    assert client("print(Context('cuda', level='nvptx:sm_80').level)", KVQ_PTXSIM_ARCH="sm_90") == ["nvptx:sm_80"]
    assert client("Context('cuda', level='sm_90')", KVQ_PTXSIM_ARCH="sm_89") == [
        "InvalidArgument level 'sm_90' is none that a GPU of compute capability 8.9 runs: use one of nvptx:sm_80 "
        "nvptx:sm_86 nvptx:sm_89"]
    assert client("compile(Context('cuda'), ADD.replace('sm_80', 'sm_90'))", KVQ_PTXSIM_ARCH="sm_89") == [
        "Unsupported ptx is made for sm_90, which sm_89 does not run: compile it for that"]
    assert client("compile(Context('cuda'), ADD.replace('7.8', '9.9'))") == [
        "Unsupported ptx is PTX of a version that the driver, for CUDA 13.0, does not know: update the driver"]


def test_one_gpu_of_several():
    assert client("print(Context('cuda').level)", KVQ_CUDA_DEVICE="0") == ["nvptx:sm_80"]
    assert client("Context('cuda')", KVQ_CUDA_DEVICE="1") == ["InvalidArgument there is no GPU 1: use one of 0 to 0"]
    assert client("Context('cuda')", KVQ_CUDA_DEVICE="first") == [
        "InvalidArgument KVQ_CUDA_DEVICE is 'first': set it to the number of a GPU, 0 for the first"]


def has_driver():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.mark.skipif(has_driver(), reason="there is a driver here")
def test_no_driver():
    with pytest.raises(kvq.Unsupported, match=r"libcuda\.so\.1: cannot open .*install it, or create a context on "):
        Context("cuda")


def test_no_gpu():
    out = client("Context('cuda')", KVQ_PTXSIM_ARCH="sm_70")  # which the look-alike refuses to be
    assert len(out) == 1 and out[0].startswith("Unsupported the NVIDIA driver cannot be initialised: cuInit answers ")


def test_kvq_env():
    ran = run("-m", "kvq", "env")
    assert ran.returncode == 0, ran.stderr
    assert "  cuda: ptxsim sm_80, compute capability 8.0, 8192 MiB, driver for CUDA 13.0\n" in ran.stdout
    ran = run("-m", "kvq", "env", KVQ_CUDA_DEVICE="4")
    assert "  cuda: cannot be used: there is no GPU 4: use one of 0 to 0\n" in ran.stdout


def test_several_contexts_share_the_gpu():
    """A context on it is a user of the driver's primary context: one that goes takes nothing away from another."""
    assert client("""
import numpy
first, second = Context("cuda"), Context("cuda")
made, x = second.buffer(400), numpy.arange(100, dtype=numpy.float32)
kernel = compile(first, ADD)
out = first.buffer(400)
made.upload(x)
try:
    compile(second, ADD).launch([made, out, 1.0, 100], grid=[4, 1, 1], block=[32, 1, 1])
    second.synchronize()
    out.download(x)
    print(x[99])
finally:
    del first, kernel, out
made.download(x)
print(x[99])
""") == ["100.0", "99.0"]
