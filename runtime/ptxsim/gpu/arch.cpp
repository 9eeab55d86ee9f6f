// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/gpu/arch.h"

#include <algorithm>

namespace kvq::ptxsim {

static constexpr int KiB = 1024;
static constexpr Arch kArchs[] = {
    {"sm_80", 8, 0, 108, 2048, 32, 164 * KiB, 163 * KiB, 40 << 20},
    {"sm_86", 8, 6, 82, 1536, 16, 100 * KiB, 99 * KiB, 6 << 20},
    {"sm_87", 8, 7, 16, 1536, 16, 164 * KiB, 163 * KiB, 4 << 20},
    {"sm_89", 8, 9, 128, 1536, 24, 100 * KiB, 99 * KiB, 72 << 20},
    {"sm_90", 9, 0, 132, 2048, 32, 228 * KiB, 227 * KiB, 50 << 20},
    {"sm_100", 10, 0, 148, 2048, 32, 228 * KiB, 227 * KiB, 126 << 20},
    {"sm_120", 12, 0, 170, 1536, 24, 100 * KiB, 99 * KiB, 96 << 20},
};

const Arch *findArch(std::string_view name) {
  for (const Arch &arch : kArchs)
    if (name == arch.name)
      return &arch;
  return nullptr;
}

std::string archNames() {
  std::string names;
  for (const Arch &arch : kArchs)
    names += (names.empty() ? "" : ", ") + std::string(arch.name);
  return names;
}

int occupancy(const Arch &arch, int threads, int64_t sharedBytes) {
  if (threads < 1 || threads > kMaxThreads || sharedBytes > arch.sharedPerBlock)
    return 0;
  const int warps = (threads + kWarp - 1) / kWarp;
  // Shared memory is handed out in steps of 128 bytes.
  const int64_t shared = (sharedBytes + kReservedShared + 127) / 128 * 128;
  return static_cast<int>(
      std::min<int64_t>({arch.blocksPerSm, arch.threadsPerSm / kWarp / warps, arch.sharedPerSm / shared}));
}

// Blanks and comments before the next word, which is then taken off the text.
static std::string_view nextWord(std::string_view &text) {
  for (;;) {
    const size_t begin = std::min(text.find_first_not_of(" \t\r\n"), text.size());
    text.remove_prefix(begin);
    const bool line = text.starts_with("//");
    if (!line && !text.starts_with("/*"))
      break;
    const size_t end = text.find(line ? "\n" : "*/", 2);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + (line ? 1 : 2));
  }
  const std::string_view word = text.substr(0, std::min(text.find_first_of(" \t\r\n,/"), text.size()));
  text.remove_prefix(word.empty() ? std::min<size_t>(1, text.size()) : word.size());
  return word;
}

Target targetOf(std::string_view ptx) {
  Target target;
  // The two directives come first in a module, before any other.
  if (nextWord(ptx) != ".version")
    return target;
  int major = 0, minor = 0, *part = &major;
  for (char c : nextWord(ptx)) {
    if (c == '.')
      part = &minor;
    else if (c >= '0' && c <= '9' && *part < 1000)
      *part = *part * 10 + (c - '0');
  }
  target.version = major * 10 + minor;
  if (nextWord(ptx) == ".target")
    target.name = nextWord(ptx);
  return target;
}

bool runs(const Arch &arch, std::string_view target) {
  if (!target.starts_with("sm_"))
    return false;
  int number = 0;
  size_t digits = 3;
  for (; digits < target.size() && target[digits] >= '0' && target[digits] <= '9' && number < 10000; ++digits)
    number = number * 10 + (target[digits] - '0');
  const int own = arch.major * 10 + arch.minor;
  const std::string_view suffix = target.substr(digits);
  if (suffix.empty())
    return number <= own;
  // Architecture-specific code runs on that one, family-specific code on the later ones of its major version too.
  return suffix == "a" ? number == own : suffix == "f" && number <= own && number / 10 == arch.major;
}

} // namespace kvq::ptxsim
