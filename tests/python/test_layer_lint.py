# SPDX-License-Identifier: Apache-2.0
"""The layer lint finds planted violations with file, line, rule and remedy, and accepts what the table allows."""
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "layer_lint.py"


def run_lint(root):
    return subprocess.run([sys.executable, SCRIPT, "--root", root], capture_output=True, text=True, check=False)


def plant(root, path, text):
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("// first line\n" + text + "\n", encoding="utf-8")


FORBIDDEN = [
    ("runtime/format/format.h", '#include "runtime/reference/reference.h"', "standard library only"),
    ("runtime/cache/cache.cpp", '#include "mlir/IR/Builders.h"', "the runtime stands without LLVM"),
    ("runtime/cache/cache.cpp", '#include <llvm/ADT/STLExtras.h>', "the runtime stands without LLVM"),
    ("runtime/reference/reference.cpp", '#include "runtime/cache/cache.h"', "may not include runtime/cache/cache.h"),
    ("runtime/device/ref/ref.cpp", '#include "runtime/device/cpu/pool.h"', "may not include runtime/device/cpu/pool.h"),
    ("runtime/cache/cache.cpp", '#include "runtime/capi/handles.h"', "nobody includes runtime/capi"),
    ("runtime/device/cpu/cpu.cpp", "#include <cuda.h>", "by dlopen only"),
    ("runtime/device/cpu/cpu.cpp", 'void *f() { return dlopen("x.so", 1); }', "only runtime/jit/library.cpp"),
    ("runtime/capi/kvq.cpp", '#include "runtime/include/kvq/kvq.h"', "write <kvq/kvq.h>"),
    ("runtime/include/kvq/kvq.h", '#include "runtime/format/format.h"', "public headers stand alone"),
    ("dialect/kvq/Ops.td", 'include "passes/Passes.td"', "may not include passes/Passes.td"),
    ("dialect/tile/Tile.h", '#include "dialect/kvq/Kvq.h"', "without the upper ops"),
    ("passes/Fold.cpp", '#include "codegen/compile.h"', "target-independent"),
    ("codegen/compile.cpp", '#include "runtime/cache/cache.h"', "codegen never calls the runtime"),
    ("codegen/cpu/lower.cpp", '#include "codegen/nvptx/lower.h"', "targets never see each other"),
    ("codegen/nvptx/lower.cpp", '#include "codegen/cpu/lower.h"', "targets never see each other"),
    ("python/native/module.cpp", '#include "runtime/cache/cache.h"', "use the C API"),
    ("examples/embed_c/main.c", '#include "runtime/format/format.h"', "use the C API"),
    ("bench/cpp/bench.cpp", '#include "runtime/device/device.h"', "use the C API"),
    ("python/kvq/lowlevel.py", "    import torch", "torch is imported only under"),
    ("python/kvq/__init__.py", "from transformers import Cache", "transformers is imported only under"),
]


@pytest.mark.parametrize("path, line, said", FORBIDDEN, ids=[f"{p}: {x.strip()}" for p, x, _ in FORBIDDEN])
def test_forbidden_line_is_found(tmp_path, path, line, said):
    plant(tmp_path, path, line)
    result = run_lint(tmp_path)
    assert result.returncode == 1
    assert f"{path}:2: " in result.stdout
    assert said in result.stdout


def test_own_header_by_relative_path_is_found(tmp_path):
    plant(tmp_path, "runtime/cache/pool.h", "")
    plant(tmp_path, "runtime/cache/cache.cpp", '#include "pool.h"')
    result = run_lint(tmp_path)
    assert result.returncode == 1
    assert 'runtime/cache/cache.cpp:2: ' in result.stdout
    assert 'write "runtime/cache/pool.h"' in result.stdout


ALLOWED = [
    ("runtime/include/kvq/kvq.h", "#include <kvq/kernel_abi.h>"),
    ("runtime/format/format.cpp", '#include "runtime/format/format.h"'),
    ("runtime/format/format.cpp", "#include <sys/types.h>"),
    ("runtime/jit/library.cpp", 'void *f() { return dlopen("x.so", 1); }'),
    ("runtime/jit/compiler.cpp", "#include <kvq/compiler_plugin.h>"),
    ("runtime/capi/kvq.cpp", '#include "runtime/cache/cache.h"'),
    ("dialect/kvq/Ops.td", 'include "mlir/IR/OpBase.td"'),
    ("passes/Fold.cpp", '#include "dialect/kvq/Kvq.h"'),
    ("codegen/cpu/lower.cpp", '#include "codegen/compile.h"'),
    ("bench/cpp/bench.cpp", "#include <benchmark/benchmark.h>"),
    ("python/kvq/hf/cache.py", "import torch"),
    ("python/kvq/compat/kivi.py", "from transformers import LlamaForCausalLM"),
    ("tests/unit/cache_test.cpp", '#include "runtime/cache/cache.h"'),
]


@pytest.mark.parametrize("path, line", ALLOWED, ids=[f"{p}: {x}" for p, x in ALLOWED])
def test_allowed_line_passes(tmp_path, path, line):
    plant(tmp_path, path, line)
    result = run_lint(tmp_path)
    assert result.returncode == 0, result.stdout
