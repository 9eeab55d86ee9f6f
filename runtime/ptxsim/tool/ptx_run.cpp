// SPDX-License-Identifier: Apache-2.0
//
// ptx-run: runs a kernel of a PTX file on the simulator.
#include "runtime/ptxsim/tool/buffers.h"
#include "runtime/ptxsim/tool/npy.h"

#include <cstdio>
#include <exception>

using namespace kvq;
using namespace kvq::ptxsim;

namespace {

enum Exit { kClean = 0, kFindings = 1, kRefused = 2, kStuck = 3 };

int refused(const Status &status) {
  std::fprintf(stderr, "ptx-run: %s\n", status.message().c_str());
  return kRefused;
}

Result<std::string> chooseKernel(const Command &command, const LoadedModule &module) {
  const std::vector<std::string> kernels = module.kernels();
  if (!command.kernel.empty())
    return command.kernel; // attributes() knows whether there is one
  if (kernels.size() == 1)
    return kernels[0];
  if (kernels.empty())
    return Status(Code::InvalidArgument, command.file + " has no kernel");
  std::string names;
  for (const std::string &name : kernels)
    names += (names.empty() ? "" : ", ") + name;
  return Status(Code::InvalidArgument, command.file + " has several kernels, " + names + ": name one with --kernel");
}

Status print(const Command &command, const Report &report, std::string_view text) {
  const std::string json = toJson(report);
  if (command.json == "-")
    std::fputs(json.c_str(), stdout);
  else if (!command.json.empty())
    KVQ_RETURN_IF_ERROR(writeFile(command.json, json, {}));
  if (command.list)
    std::fputs(annotate(report, text).c_str(), stdout);
  if (!command.quiet && command.json != "-")
    std::fputs(toTable(report).c_str(), stdout);
  if (std::fflush(stdout) != 0)
    return {Code::Permission, "cannot write to stdout"};
  return Status::ok();
}

int run(const Command &command) {
  auto bytes = readFile(command.file);
  if (!bytes.isOk())
    return refused(bytes.status());
  Simulator simulator;
  auto module =
      simulator.load({reinterpret_cast<const char *>(bytes.value().data()), bytes.value().size()}, command.file);
  if (!module.isOk()) { // the message begins with the file and the line
    std::fprintf(stderr, "%s\n", module.status().message().c_str());
    return kRefused;
  }
  auto kernel = chooseKernel(command, *module.value());
  if (!kernel.isOk())
    return refused(kernel.status());
  auto attributes = module.value()->attributes(kernel.value());
  if (!attributes.isOk())
    return refused(attributes.status());
  auto buffers = Buffers::make(simulator.memory(), attributes.value(), command.parameters);
  if (!buffers.isOk())
    return refused(buffers.status());
  const Launch launch{kernel.value(), command.grid, command.block, command.shared, buffers.value().params()};
  auto report = simulator.launch(*module.value(), launch, command.options);
  if (!report.isOk())
    return refused(report.status());
  if (Status status = buffers.value().writeOutputs(simulator.memory()); !status.isOk())
    return refused(status);
  if (Status status = print(command, report.value(), module.value()->text()); !status.isOk())
    return refused(status);
  if (report.value().end != Report::End::Ok)
    return kStuck;
  return report.value().clean() ? kClean : kFindings;
}

} // namespace

int main(int argc, char **argv) {
  try {
    auto command = parseCommand({argv + 1, argv + argc});
    if (!command.isOk())
      return refused(command.status());
    if (command.value().help) {
      std::fputs(kUsage, stdout);
      return kClean;
    }
    return run(command.value());
  } catch (const std::exception &error) { // lack of memory
    return refused({Code::ResourceExhausted, error.what()});
  }
}
