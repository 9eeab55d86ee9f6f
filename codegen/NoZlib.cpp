// SPDX-License-Identifier: Apache-2.0
//
// What LLVM's support library takes from zlib and zstd, as in an LLVM that was built without them: compression that
// says no, and a plain CRC. Linked in front of LLVM's static archives it keeps them from needing libz and libzstd on a
// user's machine. Kernels have no debug sections, which is all that LLVM would compress; a compressed input is refused
// by LLVM's callers, which ask isAvailable() or getReasonIfUnsupported() first.

#include "llvm/Support/Compression.h"

#include "llvm/ADT/SmallVector.h"
#include "llvm/Support/CRC.h"
#include "llvm/Support/Error.h"

using namespace llvm;

static Error unavailable() {
  return createStringError("this compiler was built without zlib and zstd: give it uncompressed data");
}

// A caller that did not ask first gets the data as it is, never undefined behaviour.
static void keepAsIs(ArrayRef<uint8_t> input, SmallVectorImpl<uint8_t> &output) {
  output.assign(input.begin(), input.end());
}

bool compression::zlib::isAvailable() { return false; }
bool compression::zstd::isAvailable() { return false; }

const char *compression::getReasonIfUnsupported(Format format) {
  return format == Format::Zlib ? "kvq's compiler was built without zlib" : "kvq's compiler was built without zstd";
}

void compression::zlib::compress(ArrayRef<uint8_t> input, SmallVectorImpl<uint8_t> &output, int) {
  keepAsIs(input, output);
}
void compression::zstd::compress(ArrayRef<uint8_t> input, SmallVectorImpl<uint8_t> &output, int, bool) {
  keepAsIs(input, output);
}
void compression::compress(Params, ArrayRef<uint8_t> input, SmallVectorImpl<uint8_t> &output) {
  keepAsIs(input, output);
}

Error compression::zlib::decompress(ArrayRef<uint8_t>, uint8_t *, size_t &) { return unavailable(); }
Error compression::zlib::decompress(ArrayRef<uint8_t>, SmallVectorImpl<uint8_t> &, size_t) { return unavailable(); }
Error compression::zstd::decompress(ArrayRef<uint8_t>, uint8_t *, size_t &) { return unavailable(); }
Error compression::zstd::decompress(ArrayRef<uint8_t>, SmallVectorImpl<uint8_t> &, size_t) { return unavailable(); }
Error compression::decompress(DebugCompressionType, ArrayRef<uint8_t>, uint8_t *, size_t) { return unavailable(); }
Error compression::decompress(Format, ArrayRef<uint8_t>, SmallVectorImpl<uint8_t> &, size_t) { return unavailable(); }
Error compression::decompress(DebugCompressionType, ArrayRef<uint8_t>, SmallVectorImpl<uint8_t> &, size_t) {
  return unavailable();
}

// The CRC-32 of zlib, a bit at a time: LLVM wants it for names and debug files, a few bytes each.
uint32_t llvm::crc32(uint32_t crc, ArrayRef<uint8_t> data) {
  crc = ~crc;
  for (uint8_t byte : data) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit)
      crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1)));
  }
  return ~crc;
}
uint32_t llvm::crc32(ArrayRef<uint8_t> data) { return crc32(0, data); }
void JamCRC::update(ArrayRef<uint8_t> data) { CRC = ~crc32(~CRC, data); }
