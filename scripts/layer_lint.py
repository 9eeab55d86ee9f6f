#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Fails where a file includes or imports something that its layer may not know (docs/architecture.md, "Layers").

It reads #include lines of C++ and TableGen, import lines of Python, and dlopen calls. It does not check what CMake
links: the preset runtime-only, which builds without LLVM, does that.
"""
import argparse
import dataclasses
import pathlib
import re
import sys

COMPILER_LIBRARIES = ("mlir/", "llvm/", "clang/", "llvm-c/", "mlir-c/")
CUDA_HEADERS = ("cuda.h", "cuda_runtime.h", "cuda_fp16.h", "nvrtc.h", "nvJitLink.h", "cuda/")
PUBLIC = "kvq/"  # runtime/include/kvq, which every layer writes as <kvq/...>
FLOOR = ("runtime/format/",)
DEVICE = ("runtime/device/device.h", "runtime/device/accelerator.h", "runtime/device/accelerator_device.h",
          "runtime/device/kernel_source.h", "runtime/device/machine.h", "runtime/device/score_function.h")
ABI = ("kvq/kernel_abi.h", "kvq/compiler_plugin.h")


@dataclasses.dataclass(frozen=True)
class Layer:
    prefix: str            # files below it; the longest matching prefix decides
    may_include: tuple     # prefixes of the project's own headers, besides the layer's own folder
    libraries: tuple = ()  # prefixes of foreign headers beyond the standard library; None: any
    remedy: str = ""


RUNTIME = "the runtime stands without LLVM; talk to the compiler through runtime/jit/compiler.h"
LAYERS = (
    Layer("runtime/include/", (PUBLIC,), (), "public headers stand alone"),
    Layer("runtime/format/", (), (), "runtime/format is the floor under both halves: standard library only"),
    Layer("runtime/reference/", FLOOR + ABI[:1], (), RUNTIME),
    Layer("runtime/jit/", FLOOR + ABI, (), RUNTIME),
    Layer("runtime/device/", FLOOR + ABI[:1] + DEVICE + ("runtime/jit/compiler.h", "runtime/jit/kernel_store.h",
                                                          "runtime/jit/cubin_store.h",
                                                          "runtime/jit/choice_store.h",
                                                          "runtime/jit/score_hook.h"), (),
          RUNTIME),
    Layer("runtime/device/cuda/", FLOOR + DEVICE + ("runtime/jit/",), (), RUNTIME),
    Layer("runtime/device/cpu/", FLOOR + ABI[:1] + DEVICE + ("runtime/jit/",), (), RUNTIME),
    Layer("runtime/device/ref/", FLOOR + ABI[:1] + DEVICE + ("runtime/reference/",), (), RUNTIME),
    Layer("runtime/device/ptxsim/", FLOOR + DEVICE + ("runtime/jit/library.h", "runtime/ptxsim/gpu/"), (), RUNTIME),
    Layer("runtime/cache/", FLOOR + ABI[:1] + ("runtime/device/",), (), RUNTIME),
    Layer("runtime/ptxsim/", FLOOR, (), RUNTIME),
    Layer("runtime/capi/", FLOOR + ("runtime/", PUBLIC), (), RUNTIME),
    Layer("dialect/", FLOOR, ("mlir/", "llvm/"), "the dialect stands on runtime/format alone"),
    Layer("dialect/tile/", FLOOR, ("mlir/", "llvm/"), "the tile level must build without the upper ops"),
    Layer("passes/", FLOOR + ABI[:1] + ("dialect/",), ("mlir/", "llvm/"), "passes are target-independent: move it to codegen"),
    Layer("codegen/", FLOOR + ABI + ("dialect/", "passes/"), ("mlir/", "llvm/"), "codegen never calls the runtime"),
    Layer("codegen/cpu/", FLOOR + ABI + ("dialect/", "passes/", "codegen/"), ("mlir/", "llvm/"),
          "targets never see each other: move what both need to codegen"),
    Layer("codegen/nvptx/", FLOOR + ABI + ("dialect/", "passes/", "codegen/"), ("mlir/", "llvm/"),
          "targets never see each other: move what both need to codegen"),
    Layer("tools/", FLOOR + ABI + ("dialect/", "passes/", "codegen/", "runtime/jit/nvrtc.h"), ("mlir/", "llvm/"),
          "tools are thin mains over the compiler"),
    Layer("python/", (PUBLIC,), ("nanobind/", "Python.h"), "Python is an engine like others: use the C API, <kvq/kvq.h>"),
    Layer("examples/", (PUBLIC,), (), "an example is a user's program: use the C API, <kvq/kvq.h>"),
    Layer("bench/", (PUBLIC,), ("benchmark/",), "a benchmark measures what users call: use the C API, <kvq/kvq.h>"),
)
# Neighbours that must not see each other although they may see what is above or around both.
STRANGERS = {"codegen/cpu/": ("codegen/nvptx/",), "codegen/nvptx/": ("codegen/cpu/",),
             "dialect/tile/": ("dialect/kvq/",)}
OWN_ROOTS = ("runtime/", "dialect/", "passes/", "codegen/", "tools/", "python/", "examples/", "bench/", "autotune/",
             "tests/")
SUFFIXES = (".h", ".hpp", ".c", ".cpp", ".inc", ".td")
DLOPEN = {"runtime/jit/library.cpp": "the one file that loads optional libraries"}
TORCH_FOLDERS = ("python/kvq/hf/", "python/kvq/compat/", "python/kvq/evaluate/", "python/kvq/demo/")

INCLUDE = re.compile(r'^\s*#?\s*include\s+(?:"([^"]+)"|<([^>]+)>)')
IMPORT = re.compile(r"^\s*(?:import|from)\s+(torch|transformers)\b")
DLOPEN_CALL = re.compile(r"\bdlopen\s*\(")


def layer_of(path):
    matching = [layer for layer in LAYERS if path.startswith(layer.prefix)]
    return max(matching, key=lambda layer: len(layer.prefix), default=None)


def check_include(path, target, layer, root):
    """Returns the broken rule and its remedy, or None."""
    if target.startswith("runtime/include/"):
        return "public headers are included by their public name", f"write <{target.removeprefix('runtime/include/')}>"
    if target.startswith(CUDA_HEADERS):
        return "CUDA and NVRTC come by dlopen only", "declare the few prototypes by hand"
    if target.startswith("runtime/capi/") and not path.startswith("runtime/capi/"):
        return "nobody includes runtime/capi", "include the layer below it, or <kvq/kvq.h>"
    strangers = next((names for prefix, names in STRANGERS.items() if path.startswith(prefix)), ())
    if target.startswith(strangers):
        return f"{layer.prefix} may not include {target}", layer.remedy
    if target.startswith(OWN_ROOTS) or target.startswith(PUBLIC):
        if target.startswith((layer.prefix, *layer.may_include)):
            return None
        return f"{layer.prefix} may not include {target}", layer.remedy
    if target.startswith(COMPILER_LIBRARIES) or "/" in target and not target.startswith("sys/"):
        if target.startswith(layer.libraries):
            return None
        if target.startswith(COMPILER_LIBRARIES) or (root / target).exists():
            return f"{layer.prefix} may not include {target}", layer.remedy
    elif (root / path).parent.joinpath(target).is_file():
        return "own headers are included by their path from the root", f"write \"{pathlib.PurePath(path).parent}/{target}\""
    return None


def check_source(path, text, root):
    layer = layer_of(path)
    if layer is None:
        return
    for number, line in enumerate(text.splitlines(), 1):
        if match := INCLUDE.match(line):
            if broken := check_include(path, match[1] or match[2], layer, root):
                yield number, *broken
        code = line.split("//")[0]
        if DLOPEN_CALL.search(code) and path not in DLOPEN:
            yield number, "only runtime/jit/library.cpp calls dlopen", "go through runtime/jit/library.h"


def check_python(path, text):
    if not path.startswith("python/kvq/") or path.startswith(TORCH_FOLDERS):
        return
    for number, line in enumerate(text.splitlines(), 1):
        if match := IMPORT.match(line):
            yield (number, f"{match[1]} is imported only under {', '.join(TORCH_FOLDERS)}",
                   "move the code there, or take tensors by DLPack")


def lint(root):
    """Yields one line per broken rule: file:line: rule; remedy."""
    root = pathlib.Path(root)
    for top in sorted({layer.prefix.split("/")[0] for layer in LAYERS}):
        for file in sorted((root / top).rglob("*")):
            path = file.relative_to(root).as_posix()
            if file.suffix in SUFFIXES:
                found = check_source(path, file.read_text(encoding="utf-8"), root)
            elif file.suffix == ".py":
                found = check_python(path, file.read_text(encoding="utf-8"))
            else:
                continue
            for number, rule, remedy in found:
                yield f"{path}:{number}: {rule}; {remedy}"


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Fails where a layer includes what it may not know.")
    parser.add_argument("--root", default=pathlib.Path(__file__).resolve().parent.parent)
    options = parser.parse_args(arguments)
    broken = list(lint(options.root))
    for line in broken:
        print(line)
    print(f"layers: {len(broken)} broken rules" if broken else "layers: every include is allowed")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
