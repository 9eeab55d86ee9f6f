// SPDX-License-Identifier: Apache-2.0
#include "runtime/device/machine.h"

#include "runtime/format/text.h"

#include <fstream>
#include <map>
#include <unistd.h>

namespace kvq {

namespace {

std::string quoted(std::string_view text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\')
      result += '\\';
    result += c >= ' ' && c <= '~' ? c : '?';
  }
  return result + "\"";
}

std::string firstLine(const std::string &path) {
  std::string line;
  std::getline(std::ifstream(path) >> std::ws, line);
  return line;
}

// "model name" of x86; Arm's processors have numbers alone.
std::string processorName() {
  std::ifstream file("/proc/cpuinfo");
  std::string name, line;
  while (std::getline(file, line) && !line.empty()) {
    const size_t colon = line.find(": ");
    const std::string key = line.substr(0, line.find_first_of("\t:"));
    if (colon == line.npos)
      continue;
    if (key == "model name")
      return line.substr(colon + 2);
    if (key == "CPU implementer" || key == "CPU part")
      name += (name.empty() ? "" : " ") + key + " " + line.substr(colon + 2);
  }
  return name.empty() ? "unknown" : name;
}

// By level, in bytes. The system writes 32K, 1024K, 33792K.
std::map<std::string, int64_t> dataCaches() {
  std::map<std::string, int64_t> sizes;
  for (int index = 0;; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/";
    const std::string type = firstLine(folder + "type"), size = firstLine(folder + "size");
    if (type.empty())
      return sizes;
    const auto number = text::parseDecimal(text::leadingDigits(size));
    if (type == "Instruction" || !number)
      continue;
    const char unit = size.back();
    sizes["L" + firstLine(folder + "level")] = int64_t(*number) << (unit == 'K' ? 10 : unit == 'M' ? 20 : 0);
  }
}

} // namespace

std::string hostMachine(std::string_view level) {
  std::string caches;
  for (const auto &[name, bytes] : dataCaches())
    caches += (caches.empty() ? "" : ",") + quoted(name) + ":" + std::to_string(bytes);
  return "{\"caches\":{" + caches + "},\"cores\":" + std::to_string(sysconf(_SC_NPROCESSORS_ONLN)) +
         ",\"kind\":\"cpu\",\"name\":" + quoted(processorName()) + ",\"target\":" + quoted(level) + "}";
}

std::string acceleratorMachine(std::string_view target, std::string_view name) {
  return "{\"kind\":\"accelerator\",\"name\":" + quoted(name) + ",\"target\":" + quoted(target) + "}";
}

} // namespace kvq
