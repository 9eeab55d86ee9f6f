#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The launches of subjects.py on a real GPU, beside what the simulator made of them.

    python3 tests/ptxsim/replay_kernels.py pack FOLDER    # here: PTX, arguments and the simulator's results, 12 MB
    python3 tests/ptxsim/replay_kernels.py run FOLDER     # on a machine with a GPU: needs Python 3.8 and a driver

`run` prints a line for each launch: for every written array and accumulation mode "equal", or how many elements differ
and by how much.
"""
import ctypes
import json
import pathlib
import shutil
import struct
import sys

MODES = ("exact", "truncate")
FORMATS = {"float32": "f", "float16": "e", "int32": "i", "uint32": "I", "uint16": "H", "uint8": "B", "int8": "b"}
SCALARS = {"u32": "<I", "s32": "<i", "u64": "<Q", "f32": "<f"}
DYNAMIC_SHARED = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES


def initial(argument):
    """The bytes of a parameter or of a buffer, and of the latter the dtype."""
    import numpy as np
    import ptx_run

    if isinstance(argument, ptx_run.Scalar):
        return struct.pack(SCALARS[argument.type], argument.value), None
    if isinstance(argument, ptx_run.Bytes):
        return argument.data, None
    if isinstance(argument, ptx_run.Out):
        array = np.zeros(argument.shape, argument.dtype)
    elif isinstance(argument, ptx_run.Fill):
        array = np.full(argument.shape, argument.value, argument.dtype)
    else:
        array = np.ascontiguousarray(argument.array)
    return array.tobytes(), str(array.dtype)


def pack_launch(folder, subject, launch, variant, ptx):
    import ptx_run

    folder.mkdir()
    (folder / "kernel.ptx").write_text(ptx, encoding="utf-8")
    arguments, written = [], []
    for index, argument in enumerate(launch.arguments):
        data, dtype = initial(argument)
        (folder / f"{index}.in").write_bytes(data)
        arguments.append(dtype)
        if isinstance(argument, (ptx_run.InOut, ptx_run.Out, ptx_run.Fill)):
            written.append(index)
    for mode in MODES:
        outputs, _ = ptx_run.run(ptx, launch.grid, launch.block, *launch.arguments, kernel=subject.kernel,
                                 shared=launch.shared or None, mma=mode)
        for index, array in zip(written, outputs, strict=True):
            (folder / f"{index}.{mode}").write_bytes(array.tobytes())
    case = {"name": f"{subject.kernel} {launch.name} {variant}", "kernel": subject.kernel, "shared": launch.shared,
            "grid": (*launch.grid, 1, 1)[:3], "block": (*launch.block, 1, 1)[:3], "arguments": arguments,
            "written": written}
    (folder / "case.json").write_text(json.dumps(case), encoding="utf-8")


def pack(root):
    here = pathlib.Path(__file__).resolve().parent
    sys.path += [str(here), str(here.parent)]
    import subjects
    import toolchain

    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    count = 0
    for variant in (toolchain.PLAIN, toolchain.Variant("clang", "O2")):
        for subject in subjects.subjects().values():
            for launch in subject.launches:
                pack_launch(root / f"{count:03}", subject, launch, variant, toolchain.ptx(subject.source, variant))
                count += 1
    print(f"{count} launches")


def difference(got, want, dtype):
    if got == want:
        return "equal"
    form = f"<{len(got) // struct.calcsize(FORMATS[dtype])}{FORMATS[dtype]}"
    pairs = list(zip(struct.unpack(form, got), struct.unpack(form, want)))
    off = [abs(a - b) for a, b in pairs if a != b]
    return f"{len(off)} of {len(pairs)} differ by up to {max(off):.3g}"


def run_launch(driver, folder):
    case = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    module, function = ctypes.c_void_p(), ctypes.c_void_p()
    driver.call("cuModuleLoadData", ctypes.byref(module), (folder / "kernel.ptx").read_bytes() + b"\0")
    driver.call("cuModuleGetFunction", ctypes.byref(function), module, case["kernel"].encode())
    values = []
    for index, dtype in enumerate(case["arguments"]):
        data = (folder / f"{index}.in").read_bytes()
        if dtype is None:
            values.append(ctypes.create_string_buffer(data, len(data)))
            continue
        address = ctypes.c_uint64()
        driver.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, len(data))))
        if data:
            driver.call("cuMemcpyHtoD_v2", address, data, ctypes.c_size_t(len(data)))
        values.append(address)
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    if case["shared"]:
        driver.call("cuFuncSetAttribute", function, ctypes.c_int(DYNAMIC_SHARED), ctypes.c_int(case["shared"]))
    driver.call("cuLaunchKernel", function, *map(ctypes.c_uint, (*case["grid"], *case["block"], case["shared"])), None,
                pointers, None)
    driver.call("cuCtxSynchronize")
    found = []
    for index in case["written"]:
        size = (folder / f"{index}.in").stat().st_size
        got = ctypes.create_string_buffer(size)
        driver.call("cuMemcpyDtoH_v2", got, values[index], ctypes.c_size_t(size))
        for mode in MODES:
            want = (folder / f"{index}.{mode}").read_bytes()
            found.append(f"{index}/{mode} {difference(got.raw, want, case['arguments'][index])}")
    for value, dtype in zip(values, case["arguments"]):
        if dtype is not None:
            driver.call("cuMemFree_v2", value)
    print(f"{case['name']}: {'; '.join(found)}", flush=True)


def run(root):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    import cuda_driver

    driver = cuda_driver.Driver()
    print(json.dumps(driver.information()))
    for folder in sorted(root.iterdir()):
        run_launch(driver, folder)


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("pack", "run"):
        raise SystemExit(__doc__)
    {"pack": pack, "run": run}[sys.argv[1]](pathlib.Path(sys.argv[2]))
