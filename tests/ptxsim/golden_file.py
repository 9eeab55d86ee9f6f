# SPDX-License-Identifier: Apache-2.0
"""Golden files: what a GPU answered to the forms. One line of text, then zlib over a JSON header and the results.

A result is kept at its own width, its bytes regrouped by significance, which compresses better. Inputs are not kept:
they are drawn again, and a digest tells when a form has changed since.
"""
import json
import os
import struct
import zlib

import forms

MAGIC = b"kvq golden file 1\n"
FORMATS = {2: "H", 4: "I", 8: "Q"}


def pack(form, words):
    """The results, `words[k*count+i]`, as bytes."""
    packed = b""
    for slot, size in enumerate(forms.output_bytes(form)):
        column = words[slot * form.count:(slot + 1) * form.count]
        plain = struct.pack("<%d%s" % (form.count, FORMATS[size]), *[word & ((1 << 8 * size) - 1) for word in column])
        packed += b"".join(plain[byte::size] for byte in range(size))
    return packed


def unpack(form, packed):
    """A list of `count` integers for each result."""
    columns, begin = [], 0
    for size in forms.output_bytes(form):
        plain = bytearray(size * form.count)
        for byte in range(size):
            plain[byte::size] = packed[begin:begin + form.count]
            begin += form.count
        columns.append(list(struct.unpack("<%d%s" % (form.count, FORMATS[size]), bytes(plain))))
    return columns


def write(path, information, results, refused):
    """`results` maps a form's name to (digest, packed bytes); `refused` a name to the reason."""
    header = dict(information, forms=[[name, digest, len(packed)] for name, (digest, packed) in results.items()],
                  refused=refused)
    body = json.dumps(header).encode() + b"\n" + b"".join(packed for _, packed in results.values())
    with open(path + ".new", "wb") as file:
        file.write(MAGIC + zlib.compress(body, 9))
    os.replace(path + ".new", path)


def load(folder):
    """{file name: read(file)} of a folder's golden files."""
    return {name: read(os.path.join(folder, name)) for name in sorted(os.listdir(folder)) if name.endswith(".golden")} \
        if os.path.isdir(folder) else {}


def read(path):
    """(header, {name: (digest, packed bytes)})."""
    with open(path, "rb") as file:
        content = file.read()
    if not content.startswith(MAGIC):
        raise ValueError("%s is not a golden file" % path)
    body = zlib.decompress(content[len(MAGIC):])
    line, _, blobs = body.partition(b"\n")
    header, results, begin = json.loads(line), {}, 0
    for name, digest, size in header["forms"]:
        results[name] = (digest, blobs[begin:begin + size])
        begin += size
    return header, results
