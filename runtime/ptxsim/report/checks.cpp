// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/report/checks.h"

#include "runtime/ptxsim/report/report.h"

#include <algorithm>

namespace kvq::ptxsim {

static std::string checkNames() {
  std::string names;
  for (int i = 0; i < kChecks; ++i)
    names += (i ? ", " : "") + std::string(nameOf(static_cast<Check>(i)));
  return names;
}

Result<uint32_t> parseChecks(const std::string &text) {
  uint32_t checks = 0;
  size_t begin = 0;
  for (bool first = true; begin <= text.size(); first = false) {
    const size_t end = std::min(text.find(',', begin), text.size());
    std::string word = text.substr(begin, end - begin);
    begin = end + 1;
    const bool leaveOut = word.starts_with('-');
    word.erase(0, leaveOut);
    if (first && leaveOut)
      checks = Options().checks;
    uint32_t named = word == "all" ? Options().checks : 0;
    for (int i = 0; i < kChecks; ++i)
      if (word == nameOf(static_cast<Check>(i)))
        named = 1u << i;
    if (!named && word != "none")
      return Status(Code::InvalidArgument, "there is no check '" + word + "': use all, none or " + checkNames());
    checks = leaveOut ? checks & ~named : word == "none" ? 0 : checks | named;
  }
  return checks;
}

} // namespace kvq::ptxsim
