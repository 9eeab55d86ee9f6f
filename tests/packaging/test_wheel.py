# SPDX-License-Identifier: Apache-2.0
"""The wheel: what is in it, how large it is, and that it runs where LLVM is not."""

import base64
import csv
import hashlib
import io
import json
import pathlib
import re
import subprocess
import zipfile

import pytest

from kernels import Shape
from wheel_env import PACKAGES, ROOT, clean_environment

import build_wheel

pytestmark = pytest.mark.wheel

PROGRAMS = pathlib.Path(__file__).parent / "programs"
RELEASE = build_wheel.RELEASE
SHARED_COMPILER = RELEASE / "lib" / "libkvq-compiler.so"  # linked to the shared libLLVM and libMLIR
# docs/packaging.md states the sizes; half a megabyte more wants a look at what came in.
MOST_PACKED = 22.0e6
MOST_INSTALLED = 58.0e6
# What the libraries may need of the system: in every Linux with glibc and a C++ runtime.
SYSTEM = {"libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2"}


@pytest.fixture(scope="module")
def files(wheel):
    """Every file of the wheel, by its name."""
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def libraries(installed):
    return sorted(installed.package.glob("*.so"))


def dynamic(library, tag):
    """Values of a tag of the dynamic section."""
    text = subprocess.run(["readelf", "-dW", library], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"\({tag}\).*\[(.*)\]", text)


def test_size(wheel):
    packed, unpacked = build_wheel.sizes(wheel)
    assert packed < MOST_PACKED and unpacked < MOST_INSTALLED


def test_name_and_contents(wheel, files):
    version = re.search(r"project\(kvq VERSION (\S+)", (ROOT / "CMakeLists.txt").read_text())[1]
    assert wheel.name.startswith(f"kvq_jit-{version}-cp") and wheel.name.endswith("x86_64.whl")
    sources = {str(p.relative_to(ROOT / "python")) for p in (ROOT / "python/kvq").rglob("*.py")}
    others = {"kvq/py.typed", "kvq/_native.pyi", "kvq/libkvq.so", "kvq/libkvq-compiler.so", "kvq/include/kvq/kvq.h"}
    assert sources | others <= set(files)
    info = f"kvq_jit-{version}.dist-info"
    assert files[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert b"LLVM" in files[f"{info}/licenses/python/licenses/NOTICE.txt"]
    scripts = b"[console_scripts] kvq = kvq.cli:main kvq-inspect = kvq.cli:inspect_main"
    assert files[f"{info}/entry_points.txt"].split() == scripts.split()
    tops = {name.split("/")[0] for name in files}
    assert tops == {"kvq", info}
    assert not [name for name in files if "__pycache__" in name]
    # The simulator, and above all what looks like CUDA's driver, stays where it was built.
    assert not [name for name in files if "libcuda" in name or "ptxsim" in name or "ptx-run" in name]


def test_metadata_asks_for_nothing_but_extras(files):
    (name,) = (n for n in files if n.endswith("/METADATA"))
    lines = files[name].decode().split("\n\n")[0].splitlines()
    assert "Name: kvq-jit" in lines and "License-Expression: Apache-2.0" in lines
    required = [line for line in lines if line.startswith("Requires-Dist:")]
    assert required and all("extra ==" in line for line in required)


def test_extras_allow_what_the_tests_run_with():
    """The pinned versions of python/requirements satisfy the bounds of pyproject.toml."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    pinned = {}
    for path in (ROOT / "python/requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            if "==" in line and not line.startswith("#"):
                name, version = line.split("==")
                pinned[name.lower()] = version
    extras = sum(project["project"]["optional-dependencies"].values(), [])
    bounds = [Requirement(text) for text in extras + project["build-system"]["requires"]]
    checked = [b.name for b in bounds if b.name != "kvq-jit"]
    assert len(checked) >= 8
    for bound in bounds:
        if bound.name != "kvq-jit":
            assert bound.specifier.contains(pinned[bound.name]), bound


def test_record_is_right(files):
    (name,) = (n for n in files if n.endswith("/RECORD"))
    rows = list(csv.reader(io.StringIO(files[name].decode())))
    assert {row[0] for row in rows} == set(files)
    for path, digest, size in rows:
        if path != name:
            sha = base64.urlsafe_b64encode(hashlib.sha256(files[path]).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={sha}", len(files[path]))


def test_nothing_names_the_build_tree(files):
    for name, content in files.items():
        assert str(ROOT).encode() not in content, name


def test_libraries_need_the_system_and_each_other(installed):
    names = [library.name for library in libraries(installed)]
    assert len(names) == 3
    for library in libraries(installed):
        needed = set(dynamic(library, "NEEDED"))
        assert needed and needed - SYSTEM <= {"libkvq.so"}, library.name
        paths = dynamic(library, "RUNPATH") + dynamic(library, "RPATH")
        assert paths == (["$ORIGIN"] if library.name.startswith("_native") else []), library.name


def test_compiler_exports_the_plugin_only(installed):
    library = installed.package / "libkvq-compiler.so"
    text = subprocess.run(["nm", "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
    declared = re.findall(r"\(\*(kvq_compiler_\w+)_fn\)", (ROOT / "runtime/include/kvq/compiler_plugin.h").read_text())
    assert len(declared) >= 8
    assert {line.split()[-1] for line in text.splitlines()} == set(declared)


def attend(installed, tmp_path, prefix=(), **environment):
    """The result of programs/attend.py."""
    return installed.run(
        PROGRAMS / "attend.py", PACKAGES, tmp_path / "store", prefix=prefix, KVQ_STORE=str(tmp_path / "shared"),
        **environment,
    )  # fmt: skip


def check_attended(result, installed):
    assert result.returncode == 0, result.stderr
    said = json.loads(result.stdout.splitlines()[-1])
    assert pathlib.Path(said["file"]) == installed.package / "__init__.py"
    assert said["version"] in next(installed.site.glob("kvq_jit-*.dist-info")).name
    assert said["sources"] and set(said["sources"]) == {"compiled"}
    assert said["difference"] < 1e-3  # outputs are of the order of 1; the default class is exact
    assert said["generated"] == 5
    return said


def test_runs_without_opening_a_library_of_llvm(installed, tmp_path):
    assert check_attended(attend(installed, tmp_path), installed)["llvm"] == []


def test_the_shared_compiler_would_have_been_seen(installed, tmp_path):
    """The control of the test above: with build/release's compiler the same program does map LLVM."""
    said = check_attended(attend(installed, tmp_path, KVQ_COMPILER=str(SHARED_COMPILER)), installed)
    assert any(name.startswith("libLLVM") for name in said["llvm"])
    assert any(name.startswith("libMLIR") for name in said["llvm"])


def hidden_llvm():
    """Command that runs the rest of its arguments where LLVM's files are empty, or None where that is not permitted."""
    text = subprocess.run(["ldd", SHARED_COMPILER], capture_output=True, text=True, check=True).stdout
    shared = [pathlib.Path(p).resolve() for p in re.findall(r"=> (\S*lib(?:LLVM|MLIR)\S*)", text)]
    assert len(shared) >= 2, text
    script = "set -e\n" + "".join(f"mount --bind /dev/null {path}\n" for path in shared)
    prefixes = {path.parent.parent for path in shared if "llvm" in path.parent.parent.name}
    script += "".join(f"mount -t tmpfs none {prefix}\n" for prefix in sorted(prefixes)) + 'exec "$@"'
    for namespace in (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"]):
        command = [*namespace, "sh", "-c", script, "sh"]
        if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
            return command
    return None


def test_runs_with_llvm_hidden(installed, tmp_path):
    """LLVM's files are gone for the process, shown by the shared compiler, which does not load; the wheel's runs."""
    prefix = hidden_llvm()
    if prefix is None:
        pytest.skip("mount namespaces are not permitted here; the test of the mapped files stands for it")
    control = attend(installed, tmp_path, prefix, KVQ_COMPILER=str(SHARED_COMPILER))
    assert control.returncode != 0 and "cannot be loaded" in control.stderr
    check_attended(attend(installed, tmp_path, prefix), installed)


def test_a_c_program_builds_and_runs_against_the_wheel(installed, tmp_path):
    package = installed.package
    program = tmp_path / "embed_c"
    subprocess.run(
        ["cc", ROOT / "examples/embed_c/main.c", "-I", package / "include", "-L", package, "-lkvq",
         f"-Wl,-rpath,{package}", "-lm", "-o", program], check=True,
    )  # fmt: skip
    store = str(tmp_path / "store")
    subprocess.run([program, "cpu"], check=True, cwd=tmp_path, env=clean_environment(KVQ_STORE=store))


def requests():
    """Requests over all ops, levels, formats and both element types, a line each."""
    pairs = ("k4c32-v4t32", "k2c64-v2t16", "k8t32-v8t64", "k4t32-v2c128")
    ops = ("append", "quantize_k", "quantize_v", "attend", "merge", "dequantize_k", "dequantize_v")
    lines = []
    for index, pair in enumerate(pairs):
        shape = Shape(pair, page=128, dk=64, dv=64, ratio=1 + 2 * index, dtype=("f32", "bf16")[index % 2], rows=1)
        lines += [f"{shape.request(op)} {level}" for op in ops for level in ("x86-64", "x86-64-v3", "x86-64-v4")]
    return "\n".join(lines)


def test_both_compilers_emit_the_same_bytes(installed):
    """Linking archives and folding identical functions changed nothing that the compiler does."""
    outputs = []
    for plugin in (installed.package / "libkvq-compiler.so", SHARED_COMPILER):
        command = [installed.python, PROGRAMS / "hash_objects.py", plugin]
        outputs.append(subprocess.run(command, input=requests(), capture_output=True, text=True, check=True).stdout)
    assert len(outputs[0].splitlines()) == 84
    assert len({line.split()[-1] for line in outputs[0].splitlines()}) > 60
    assert outputs[0] == outputs[1]
