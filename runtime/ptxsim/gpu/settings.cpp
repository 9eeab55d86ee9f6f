// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/gpu/settings.h"

#include "runtime/ptxsim/gpu/option_text.h"

#include <cstdlib>

namespace kvq::ptxsim {

static std::string variableOf(std::string_view option) {
  std::string name = "KVQ_PTXSIM_";
  for (char c : option)
    name += c == '-' ? '_' : c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  return name;
}

static Status wrong(const std::string &variable, const std::string &why) {
  return {Code::InvalidArgument, variable + ": " + why};
}

Result<Settings> settingsFromEnvironment() {
  Settings settings;
  if (const char *name = std::getenv("KVQ_PTXSIM_ARCH")) {
    settings.arch = findArch(name);
    if (!settings.arch)
      return wrong("KVQ_PTXSIM_ARCH", "there is no '" + std::string(name) + "': use one of " + archNames());
  }
  if (const char *bytes = std::getenv("KVQ_PTXSIM_MEMORY")) {
    auto number = parseNumber(bytes, 1 << 20, uint64_t(1) << 36);
    if (!number.isOk())
      return wrong("KVQ_PTXSIM_MEMORY", number.status().message());
    settings.memoryBytes = static_cast<int64_t>(number.value());
  }
  if (const char *file = std::getenv("KVQ_PTXSIM_REPORT"))
    settings.reportFile = file;
  for (std::string_view option : optionNames()) {
    const std::string variable = variableOf(option);
    if (const char *value = std::getenv(variable.c_str()))
      if (Status status = setOption(settings.options, option, value); !status.isOk())
        return wrong(variable, status.message());
  }
  return settings;
}

} // namespace kvq::ptxsim
