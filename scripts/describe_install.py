#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Says what a pip installation would bring, from the report of `pip install --dry-run --report`, before it is done.

It installs nothing. Sizes are those of the wheels; where a server does not tell one, the size is left out.
"""
import json
import os
import sys
import urllib.parse
import urllib.request

# Measured on x86-64 Linux, Python 3.11: `du -sh` of the installed package.
CPU_BUILD_INSTALLED_MIB = 754


def wheel_bytes(url):
    parts = urllib.parse.urlsplit(url)
    try:
        if parts.scheme == "file":
            return os.path.getsize(urllib.parse.unquote(parts.path))
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=20) as answer:
            return int(answer.headers["Content-Length"])
    except (OSError, TypeError, ValueError):
        return None


def mib(size):
    return "size unknown" if size is None else f"{size / 2**20:,.0f} MiB to fetch"


def describe(report):
    entries = [(e["metadata"]["name"], e["metadata"]["version"], e["download_info"]["url"]) for e in report["install"]]
    torch = [e for e in entries if e[0] == "torch"]
    cuda = [e for e in entries if e[0].lower().startswith(("nvidia", "cuda", "triton"))]
    if not torch:
        return ["torch is installed already"]
    name, version, url = torch[0]
    lines = [f"{name} {version}: {mib(wheel_bytes(url))}"]
    if not cuda:
        lines[0] += f"; CPU build, about {CPU_BUILD_INSTALLED_MIB} MiB when installed"
        return lines
    sizes = [wheel_bytes(e[2]) for e in cuda]
    known = sum(s for s in sizes if s is not None)
    lines.append(f"it is a CUDA build and brings {len(cuda)} NVIDIA packages: {mib(known or None)}, several GiB installed")
    lines.append("kvq needs only the CPU build: to get it, stop here and run ./dev setup again with KVQ_TORCH_INDEX set "
                 "to the URL of PyTorch's index of CPU wheels")
    return lines


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        for line in describe(json.load(file)):
            print(f"    {line}")


if __name__ == "__main__":
    main()
