// SPDX-License-Identifier: Apache-2.0
//
// NVRTC's part of the runtime at the command line, for the tests beside this file. What a command makes goes into
// files, what is known about it to standard output as JSON; an error is its sentence on standard error and exit code 1.
//
//   version                                   the library that is found
//   compile PTX ARCH[,ARCH] FOLDER [N]        every kernel of a file, as FOLDER/KERNEL.ARCH.cubin, within N registers
//   hook PTX CUDA NAME ARCH OUT               a score function in CUDA C++ in a module
//   link PTX HOOK OUT                         the same of a hook in PTX
//   inline PTX OUT                            a module without calls
//   store FOLDER PTX KERNEL ARCH              a cubin through the kernel store: "compiled" or "store"
//   damage CUBIN                              reads every truncation, and the file with each byte changed
//   threads PTX KERNEL ARCH N                 whether N threads get the same bytes
#include "runtime/jit/cubin.h"
#include "runtime/jit/cubin_store.h"
#include "runtime/jit/ptx_inline.h"
#include "runtime/jit/score_hook.h"

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <thread>

using namespace kvq;

namespace {

using Words = std::vector<std::string>;

std::string readFile(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}
template <typename Bytes> void writeFile(const std::string &path, const Bytes &bytes) {
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char *>(bytes.data()), std::ssize(bytes));
}

Status printKernel(const CubinBinary &cubin, const std::string &name, const std::string &arch,
                   const std::string &file) {
  auto info = readCubin(cubin.bytes);
  if (!info.isOk())
    return info.status();
  const CubinKernel *kernel = info.value().find(name);
  const auto spills = readSpills(cubin.log, name);
  if (!kernel || !spills)
    return {Code::Internal, "kernel " + name + " is not in its cubin or not in the log"};
  std::string parameters;
  for (const CubinKernel::Parameter &parameter : kernel->parameters)
    parameters += (parameters.empty() ? "[" : ", [") + std::to_string(parameter.offset) + ", " +
                  std::to_string(parameter.size) + "]";
  std::printf("{\"kernel\": \"%s\", \"arch\": \"%s\", \"file\": \"%s\", \"processor\": %d, \"registers\": %d, "
              "\"barriers\": %d, \"frame\": %lld, \"stack\": %lld, \"shared\": %lld, \"local\": %lld, \"code\": %lld, "
              "\"parameter_bytes\": %lld, \"threads\": %u, \"spill_stores\": %lld, \"spill_loads\": %lld, "
              "\"parameters\": [%s]}\n",
              name.c_str(), arch.c_str(), file.c_str(), info.value().processor, kernel->registers, kernel->barriers,
              static_cast<long long>(kernel->frameBytes), static_cast<long long>(kernel->stackBytes),
              static_cast<long long>(kernel->sharedBytes), static_cast<long long>(kernel->localBytes),
              static_cast<long long>(kernel->codeBytes), static_cast<long long>(kernel->parameterBytes),
              kernel->maxThreads[0] * kernel->maxThreads[1] * kernel->maxThreads[2],
              static_cast<long long>(spills->stores), static_cast<long long>(spills->loads), parameters.c_str());
  return Status::ok();
}

Status compileAll(const Nvrtc &nvrtc, const Words &words) {
  const std::string ptx = readFile(words[1]);
  auto module = PtxModule::parse(ptx);
  if (!module.isOk())
    return module.status();
  for (const PtxFunction &function : module.value().functions)
    for (size_t begin = 0; function.isEntry && begin < words[2].size();) {
      const size_t end = std::min(words[2].find(',', begin), words[2].size());
      const std::string arch = words[2].substr(begin, end - begin), name(function.name);
      auto cubin =
          nvrtc.compilePtx(ptx, name, arch, {words.size() > 4 ? static_cast<uint32_t>(std::stoul(words[4])) : 0});
      if (!cubin.isOk())
        return cubin.status();
      const std::string file = words[3] + "/" + name + "." + arch + ".cubin";
      writeFile(file, cubin.value().bytes);
      KVQ_RETURN_IF_ERROR(printKernel(cubin.value(), name, arch, file));
      begin = end + 1;
    }
  return Status::ok();
}

Status addHook(const Nvrtc &nvrtc, const Words &words) {
  auto joined = addScoreHook(nvrtc, readFile(words[1]), readFile(words[2]), words[3], words[4]);
  if (joined.isOk())
    writeFile(words[5], joined.value());
  return joined.status();
}

Status linkHook(const Words &words) {
  auto joined = linkScoreHook(readFile(words[1]), readFile(words[2]));
  if (joined.isOk())
    writeFile(words[3], joined.value());
  return joined.status();
}

Status inlineAll(const Words &words) {
  const std::string ptx = readFile(words[1]);
  auto module = PtxModule::parse(ptx);
  if (!module.isOk())
    return module.status();
  auto inlined = inlineCalls(module.value());
  if (inlined.isOk())
    writeFile(words[2], inlined.value().text);
  return inlined.status();
}

Status throughStore(const Nvrtc &nvrtc, const Words &words) {
  auto store = KernelStore::open(words[1].c_str(), KernelStore::Access::ReadWrite);
  if (!store.isOk())
    return store.status();
  bool compiled = false;
  auto cubin = obtainCubin(store.value(), nvrtc, readFile(words[2]), words[3], words[4], {}, compiled);
  if (!cubin.isOk())
    return cubin.status();
  std::printf("%s\n", compiled ? "compiled" : "store");
  return printKernel({cubin.value().object, cubin.value().log}, words[3], words[4], "");
}

Status damage(const Words &words) {
  const std::string text = readFile(words[1]);
  const std::vector<uint8_t> whole(text.begin(), text.end());
  size_t truncated = 0, changed = 0;
  for (size_t size = 0; size < whole.size(); ++size)
    truncated +=
        !readCubin(std::vector<uint8_t>(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))).isOk();
  for (size_t at = 0; at < whole.size(); ++at)
    for (uint8_t change : {0xff, 0x80, 0x01}) {
      std::vector<uint8_t> bytes = whole;
      bytes[at] ^= change;
      changed += !readCubin(bytes).isOk();
    }
  std::printf("{\"size\": %zu, \"truncated\": %zu, \"changed\": %zu}\n", whole.size(), truncated, changed);
  return Status::ok();
}

Status onThreads(const Nvrtc &nvrtc, const Words &words) {
  const std::string ptx = readFile(words[1]);
  std::vector<Result<CubinBinary>> cubins(std::stoul(words[4]), Status(Code::Internal, ""));
  std::vector<std::thread> threads;
  for (auto &cubin : cubins)
    threads.emplace_back([&] { cubin = nvrtc.compilePtx(ptx, words[2], words[3]); });
  for (std::thread &thread : threads)
    thread.join();
  for (const auto &cubin : cubins) {
    if (!cubin.isOk())
      return cubin.status();
    if (cubin.value().bytes != cubins.front().value().bytes)
      return {Code::Internal, "two threads got different bytes"};
  }
  return Status::ok();
}

Status run(const Words &words) {
  const std::string &verb = words[0];
  if (verb == "inline" && words.size() == 3)
    return inlineAll(words);
  if (verb == "link" && words.size() == 4)
    return linkHook(words);
  if (verb == "damage" && words.size() == 2)
    return damage(words);
  auto nvrtc = Nvrtc::load();
  if (!nvrtc.isOk())
    return nvrtc.status();
  if (verb == "version" && words.size() == 1) {
    std::printf("%s %s\n", nvrtc.value()->version().c_str(), nvrtc.value()->file().c_str());
    return Status::ok();
  }
  if (verb == "compile" && words.size() >= 4)
    return compileAll(*nvrtc.value(), words);
  if (verb == "hook" && words.size() == 6)
    return addHook(*nvrtc.value(), words);
  if (verb == "store" && words.size() == 5)
    return throughStore(*nvrtc.value(), words);
  if (verb == "threads" && words.size() == 5)
    return onThreads(*nvrtc.value(), words);
  return {Code::InvalidArgument, "no such command: see the head of nvrtc_tool.cpp"};
}

} // namespace

int main(int count, char **values) {
  if (count < 2)
    return 2;
  const Status status = run(Words(values + 1, values + count));
  if (!status.isOk())
    std::cerr << status.message() << "\n";
  return status.isOk() ? 0 : 1;
}
