# SPDX-License-Identifier: Apache-2.0
"""Kernels whose inputs are constants, and the results that ptxas computes for them at -O3."""
import os
import pathlib
import shutil
import subprocess
import sysconfig

import cubin
import forms

INPUTS = 50


def find_ptxas():
    """ptxas of the setting KVQ_PTXAS, of the wheel nvidia-cuda-nvcc, or of the toolkit; None without one."""
    wheel = pathlib.Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    candidates = [os.environ.get("KVQ_PTXAS"), *sorted(wheel.glob("*/bin/ptxas"), reverse=True), shutil.which("ptxas")]
    return next((str(path) for path in candidates if path and os.access(path, os.X_OK)), None)


def literal(kind, bits):
    return "0x%x" % bits


def give(slot, kind, bits):
    if kind == "pred":
        return "mov.b32 %%w%d, %d;\n  setp.ne.b32 %%a%d, %%w%d, 0;" % (slot, bits, slot, slot)
    return "mov.b%s %%a%d, %s;" % (forms.register(kind)[2:], slot, literal(kind, bits))


def keep(slot, kind, place):
    """Stores a result as one word, or as two."""
    register = forms.register(kind)
    if register == ".pred":
        return "selp.b32 %%v%d, 1, 0, %%d%d;\n  st.global.b32 [%%out+%d], %%v%d;" % (slot, slot, place, slot)
    if register == ".b16":
        return "cvt.u32.u16 %%v%d, %%d%d;\n  st.global.b32 [%%out+%d], %%v%d;" % (slot, slot, place, slot)
    return "st.global%s [%%out+%d], %%d%d;" % (register, place, slot)


def stride(form):
    return 8 * len(form.outs)


def kernel(form, name, columns):
    """One kernel that executes the form on its first INPUTS operands as constants."""
    lines = [".visible .entry %s(.param .u64 output)\n{\n%s" % (name, forms.PROLOGUE)]
    lines += ["  .reg %s %%a%d;\n" % (forms.register(kind), slot) for slot, kind in enumerate(form.ins)]
    lines += ["  .reg %s %%d%d;\n" % (forms.register(kind), slot) for slot, kind in enumerate(form.outs)]
    lines.append("  ld.param.u64 %out, [output];\n  cvta.to.global.u64 %out, %out;\n")
    for index in range(INPUTS):
        lines += ["  %s\n" % give(slot, kind, columns[slot][index]) for slot, kind in enumerate(form.ins)]
        lines.append("  %s\n" % form.body)
        lines += ["  %s\n" % keep(slot, kind, index * stride(form) + 8 * slot) for slot, kind in enumerate(form.outs)]
    return "".join(lines) + "  ret;\n}\n"


def compile_forms(ptxas, some, folder, arch):
    """{form's name: {(result, index): value}} of the results that ptxas computed."""
    version = max(form.version for form in some)
    text = ".version %d.%d\n.target sm_%d\n.address_size 64\n" % (version // 10, version % 10, arch)
    for number, form in enumerate(some):
        text += kernel(form, "k%d" % number, form.inputs())
    source, target = pathlib.Path(folder, "folding.ptx"), pathlib.Path(folder, "folding.cubin")
    source.write_text(text)
    command = [ptxas, "-O3", "-arch=sm_%d" % arch, str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    code = cubin.kernels(target.read_bytes())
    return {form.name: results(form, cubin.stored_constants(code["k%d" % number])) for number, form in enumerate(some)}


def results(form, stored):
    found = {}
    for slot, size in enumerate(forms.output_bytes(form)):
        for index in range(INPUTS):
            place = index * stride(form) + 8 * slot
            words = [stored.get(place + 4 * part) for part in range(max(1, size // 4))]
            if None not in words:
                found[slot, index] = sum(word << 32 * part for part, word in enumerate(words)) & ((1 << 8 * size) - 1)
    return found
