# SPDX-License-Identifier: Apache-2.0
"""What the suite compiles for this very processor: the read loops, and ggml from the source package of
llama-cpp-python. Both are built when they are first needed, into build/peers, and kept."""
import ctypes
import hashlib
import os
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ROOT / "bench" / "native"
PEERS = ROOT / "build" / "peers"
GGML_PACKAGE, GGML_VERSION = "llama-cpp-python", "0.3.16"
GGML_SHA256 = "34ed0f9bd9431af045bb63d9324ae620ad0536653740e9bb163a2e1fcb973be6"
PIP_OPTIONS = ("-qq", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-binary", ":all:",
               "--no-build-isolation")
GGML_LICENSE = "LICENSE-llama.cpp"


class Missing(Exception):
    """A peer that cannot be measured here: one sentence says why."""


def run(command, what, **settings):
    """Runs a command; the last line that it said becomes the reason where it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, **settings)
    except OSError as error:
        raise Missing(f"{what} failed: {command[0]} cannot be run ({error.strerror})") from error
    if done.returncode:
        said = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
        errors = [line for line in said if "error" in line.lower()] or said[-1:] or ["it said nothing"]
        raise Missing(f"{what} failed: {errors[-1]}")


def identity(*texts):
    """What a compiled file depends on besides its version: sources and the processor that native flags mean."""
    digest = hashlib.sha256("\0".join([*texts, platform.machine(), processor()]).encode())
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def processor():
    """Lines of the first processor that decide what native flags turn on."""
    lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    return "\n".join(line for line in lines if line.startswith(("model", "cpu family", "stepping", "flags")))


def library_of(target, *definitions):
    """Where the shared library of a target of bench/native is, once it is compiled."""
    return PEERS / f"{target}-{identity(*definitions)}" / f"lib{target}.so"


def built(target, *definitions):
    """The shared library of a target, compiled if there is none of these sources and this machine."""
    library = library_of(target, *definitions)
    folder = library.parent
    if not library.exists():
        if not shutil.which("cmake") or not shutil.which("ninja"):
            raise Missing(f"{target} cannot be compiled: install cmake and ninja")
        jobs = os.environ.get("KVQ_JOBS") or str(len(os.sched_getaffinity(0)))
        print(f"    compiling {target} into {folder.relative_to(ROOT)}", flush=True)
        run(["cmake", "-G", "Ninja", "-S", SOURCES, "-B", folder, "-DCMAKE_BUILD_TYPE=Release", *definitions],
            f"configuring {target}")
        run(["cmake", "--build", folder, "-j", jobs, "--target", target], f"compiling {target}")
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise Missing(f"{library.name} cannot be loaded: {error}") from error


def ggml_folder():
    return PEERS / f"{GGML_PACKAGE}-{GGML_VERSION}" / "ggml"


def download_ggml():
    """Puts ggml's sources, out of the pinned source package, into their folder; once."""
    folder = ggml_folder().parent
    if (folder / GGML_LICENSE).exists():
        return
    PEERS.mkdir(parents=True, exist_ok=True)
    print(f"    downloading {GGML_PACKAGE} {GGML_VERSION} (source package, 51 MB)", flush=True)
    run([sys.executable, "-m", "pip", "download", *PIP_OPTIONS, "-d", PEERS, f"{GGML_PACKAGE}=={GGML_VERSION}"],
        f"downloading {GGML_PACKAGE} {GGML_VERSION}")
    archive = PEERS / f"{GGML_PACKAGE.replace('-', '_')}-{GGML_VERSION}.tar.gz"
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != GGML_SHA256:
        archive.unlink()
        raise Missing(f"{archive.name} has the SHA-256 {found} instead of {GGML_SHA256}: it is not the pinned package")
    unpack(archive, folder)
    archive.unlink()


def unpack(archive, folder):
    """ggml and its licence; the licence is written last and says that the folder is whole."""
    with tarfile.open(archive) as package:
        prefix = f"{archive.name.removesuffix('.tar.gz')}/vendor/llama.cpp/"
        for member in package:
            if member.isfile() and member.name.startswith(f"{prefix}ggml/"):
                file = folder / member.name.removeprefix(prefix)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(package.extractfile(member).read())
        text = package.extractfile(f"{prefix}LICENSE").read()
    (folder / GGML_LICENSE).write_bytes(text)


def ggml_library():
    return library_of("kvq_ggml", f"-DGGML_SOURCE={ggml_folder()}")


class Stream:
    """The read loops of bench/native/stream.cpp."""

    def __init__(self):
        self.library = built("kvq_stream")
        self.library.kvq_stream_loop_name.restype = ctypes.c_char_p
        self.library.kvq_stream_read.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self.library.kvq_stream_read.restype = ctypes.c_uint64
        count = self.library.kvq_stream_loops()
        self.loops = [self.library.kvq_stream_loop_name(loop).decode() for loop in range(count)]

    def read(self, loop, address, size, threads):
        return self.library.kvq_stream_read(self.loops.index(loop), address, size, threads)


class Ggml:
    """Flash attention of ggml over copies of K and V, one query."""

    def __init__(self, type_name, q, k, v, copies, threads):
        if not ggml_library().exists():
            download_ggml()
        self.library = built("kvq_ggml", f"-DGGML_SOURCE={ggml_folder()}")
        self.library.kvq_ggml_create.restype = ctypes.c_void_p
        self.library.kvq_ggml_bytes.restype = ctypes.c_size_t
        self.copies, self.shape = copies, q.shape
        (q_heads, d), (kv_heads, tokens, _) = q.shape, k.shape
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (q, k, v)]
        self.handle = ctypes.c_void_p(self.library.kvq_ggml_create(
            type_name.encode(), q_heads, kv_heads, d, ctypes.c_int64(tokens), copies, threads, *pointers))
        if not self.handle:
            raise Missing(f"ggml has no cache of type {type_name}, or no memory for {copies} copies of it")
        self.bytes = self.library.kvq_ggml_bytes(self.handle)

    def __del__(self):
        if getattr(self, "handle", None):
            self.library.kvq_ggml_destroy(self.handle)

    def run(self):
        if self.library.kvq_ggml_run(self.handle):
            raise RuntimeError("ggml could not compute its attention: run the suite again with --only peers")
        return self.copies

    def result(self):
        import numpy

        out = numpy.empty(self.shape, numpy.float32)
        self.library.kvq_ggml_result(self.handle, ctypes.c_void_p(out.ctypes.data))
        return out
