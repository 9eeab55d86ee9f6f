# SPDX-License-Identifier: Apache-2.0
"""Every format has kernels for NVIDIA: attention of each K with a V in turn, with --full with every V, in both
profiles and in heads with many and with few words, as far as registers of lanes. Some that hold much, as far as PTX."""

import concurrent.futures
import subprocess

import pytest

from kvq.tune.kernel_requests import attend_rows
from sim_env import BUILD

TARGET = "nvptx:sm_80"
BITS = (2, 4, 8)
HEADS = (16, 48, 64, 80, 96, 128, 192, 256)
PAGES = (32, 64, 96, 128, 256)


def sides(head):
    """By axis, bits and group: all that the text of a format allows (text_c2)."""
    per_token = [("t", group) for group in dict.fromkeys((16, 32, 64, 128, head)) if head % group == 0]
    groups = [("c", group) for group in (32, 64, 128, 256)] + per_token
    return [(f"{bits}{axis}{group}", group if axis == "c" else 32) for bits in BITS for axis, group in groups]


def requests(profile, head, full):
    both = sides(head)
    for index, (k, of_k) in enumerate(both):
        for v, of_v in both if full else [both[(index + len(both) // 2 - 1) % len(both)]]:
            page = next(page for page in PAGES[index % len(PAGES):] + (256,) if page % of_k == page % of_v == 0)
            accuracy = ("exact", "full")[index % 3 == 0]
            known = attend_rows(4, TARGET, head, "f16", accuracy)
            yield (f"attend:k{k}-v{v}:{profile}:p{page}:dk{head}:dv{head}:g4:f16:rows{known[index % len(known)]}:lag0:"
                   f"win{index % 2}:cap0:{accuracy}")


def refusal(request, *options):
    """What kvqc says of a request that it does not compile, else nothing."""
    command = [BUILD / "bin/kvqc", f"--request={request}", f"--target={TARGET}", "--no-bundle", "-o", "/dev/null"]
    command += options or ["--compile-to=lanes"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{request}: {done.stderr}" if done.returncode else ""


def refusals(requests, *options):
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return [said for said in pool.map(lambda request: refusal(request, *options), requests) if said]


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("profile", ("mma", "vnni"))
def test_every_format_compiles(profile, head, pytestconfig):
    assert not refusals(list(requests(profile, head, pytestconfig.getoption("--full"))))


def test_what_is_no_format_is_refused():
    request = next(requests("vnni", 64, False))
    assert "use 2, 4 or 8" in refusal(request.replace("k2c32", "k3c32"))


@pytest.mark.parametrize("rows, head", ((16, 64), (16, 128), (8, 256)))
def test_loops_that_follow_each_other_become_ptx(rows, head):
    """Of tiles that hold much, so that values wait in shared memory: where the loop of whole tiles ends, that of the
    others begins."""
    formats = ("k8t32-v8c64", "k2t32-v2c32", "k4t32-v4c32", "k4c32-v4t32")
    requests = [f"attend:{pair}:{profile}:p64:dk{head}:dv{head}:g4:f16:rows{rows}:lag0:win0:cap0:exact"
                for pair in formats for profile in ("vnni", "mma")]
    assert not refusals(requests, "--schedule=tile_tokens=64,rows=1,vectors=1,prefetch=0")
