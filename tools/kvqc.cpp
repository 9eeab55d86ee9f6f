// SPDX-License-Identifier: Apache-2.0
//
// kvqc: compile one kernel from the command line. Text or a request in; the program of any phase, assembly, an object
// or PTX out.

#include "codegen/Compile.h"
#include "codegen/ScheduleSpace.h"
#include "codegen/cpu/Target.h"
#include "runtime/jit/nvrtc.h"

#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Path.h"
#include "llvm/Support/TargetSelect.h"
#include "llvm/Support/ToolOutputFile.h"
#include "llvm/Support/WithColor.h"

using namespace mlir::kvq;
namespace cl = llvm::cl;

static cl::OptionCategory category("kvqc options");
static cl::opt<std::string> inputFile(cl::Positional, cl::desc("<module.mlir, - for standard input>"),
                                      cl::cat(category));
static cl::opt<std::string> request("request", cl::desc("compile a built-in kernel: its request text"),
                                    cl::value_desc("text"), cl::cat(category));
static cl::opt<std::string> scoreFile("score",
                                      cl::desc("give the requested attend kernel the score function of this file: a "
                                               "func.func of score, batch, head, query, key"),
                                      cl::value_desc("module.mlir"), cl::cat(category));
static cl::opt<std::string> scheduleText("schedule",
                                         cl::desc("compile the requested kernel with this schedule, one of "
                                                  "--list-schedules; default: the default one"),
                                         cl::value_desc("text"), cl::cat(category));
static cl::opt<std::string> targetName("target",
                                       cl::desc("a CPU level or nvptx:sm_NN; default: the best level of "
                                                "this host"),
                                       cl::cat(category));
static cl::opt<std::string> levelName("level", cl::desc("a target that is a CPU level"), cl::cat(category));
static cl::opt<std::string> compileFrom("compile-from",
                                        cl::desc("the module is a program of this phase; default: the first"),
                                        cl::value_desc("phase"), cl::cat(category));
static cl::opt<std::string> compileTo("compile-to",
                                      cl::desc("stop after this phase (see --list-phases); default: the "
                                               "last"),
                                      cl::value_desc("phase"), cl::cat(category));
static cl::opt<std::string> emitted("emit", cl::desc("what the target shall give out: object, ptx or, by NVRTC, cubin"),
                                    cl::value_desc("phase"), cl::cat(category));
static cl::opt<std::string> dumpPhases("dump-phases-to",
                                       cl::desc("write the program after every phase into this folder"),
                                       cl::value_desc("folder"), cl::cat(category));
static cl::opt<std::string> output("o", cl::desc("output file; default: standard output"), cl::init("-"),
                                   cl::cat(category));
static cl::opt<bool> listPhases("list-phases", cl::desc("print the phases of the target and exit"), cl::cat(category));
static cl::opt<bool> listSchedules("list-schedules",
                                   cl::desc("print the schedules that --request can have on the target and exit"),
                                   cl::cat(category));
static cl::opt<bool> listTargets("list-targets",
                                 cl::desc("print all targets, the CPU levels of this host with a *, and exit"),
                                 cl::cat(category));
static cl::opt<bool> listLevels("list-levels", cl::desc("print the CPU levels, those of this host with a *, and exit"),
                                cl::cat(category));
static cl::opt<bool> timing("time", cl::desc("print how long compiling took to standard error"), cl::cat(category));
static cl::opt<bool> noBundle("no-bundle", cl::desc("leave no bundle behind when compiling fails"), cl::cat(category));

static int fail(const llvm::Twine &message) {
  llvm::WithColor::error(llvm::errs(), "kvqc") << message << "\n";
  return 1;
}

// "file:line:column: ..." where the message has a place, "file: ..." where it has none.
static std::string withFile(const std::string &message) {
  const std::string &file = request.empty() ? inputFile : scoreFile;
  if (file.empty())
    return message;
  return file + (llvm::isDigit(message.front()) ? ":" : ": ") + message;
}

static llvm::Error dumpPhase(size_t place, const PhaseInfo &info, const std::string &text) {
  if (std::error_code error = llvm::sys::fs::create_directories(dumpPhases))
    return llvm::createStringError(error, "cannot create folder " + dumpPhases);
  llvm::SmallString<128> path(dumpPhases.getValue());
  llvm::sys::path::append(path, std::to_string(place) + "-" + info.name.str() + ".txt");
  std::error_code error;
  llvm::raw_fd_ostream os(path, error);
  if (error)
    return llvm::createStringError(error, "cannot write " + path.str().str());
  os << text;
  return llvm::Error::success();
}

// NAME@host is the code of a level in plain IR, which runs on this host.
static void printLevels() {
  auto host = cpu::hostLevels();
  for (const cpu::CpuLevel &level : cpu::allLevels())
    llvm::outs() << level.name << (llvm::is_contained(host, &level) ? " *" : "") << "\n";
}

static void printTargets() {
  printLevels();
  for (const Target *target : llvm::drop_begin(allTargets(), cpu::allLevels().size()))
    llvm::outs() << target->name() << "\n";
}

static void printPhases(const Target &target) {
  for (const PhaseInfo &info : allPhases(target))
    llvm::outs() << llvm::left_justify(info.name, 10) << info.help << "\n";
}

static int printSchedules(const Target &target) {
  if (request.empty())
    return fail("--list-schedules lists those of a request: give --request");
  auto parsed = kvq::parseKernelRequest(request.getValue());
  if (!parsed.isOk())
    return fail(parsed.status().message());
  auto space = getScheduleSpace(parsed.value(), target);
  if (!space.isOk())
    return fail(space.status().message());
  llvm::outs() << kvq::toText(space.value());
  return 0;
}

// The target that the options name.
static llvm::Expected<const Target *> chosenTarget() {
  if (!targetName.empty() && !levelName.empty())
    return llvm::createStringError("give --target or --level, not both");
  if (!targetName.empty())
    return findTarget(targetName);
  auto host = cpu::hostLevels();
  const cpu::CpuLevel *level = levelName.empty() ? (host.empty() ? nullptr : host.back()) : cpu::findLevel(levelName);
  if (!level)
    return llvm::createStringError("unknown CPU level \"" + levelName + "\"; use one of " + cpu::levelNames());
  return cpu::targetOf(*level);
}

static constexpr llvm::StringLiteral kCubin = "cubin";

// The phase to stop after.
static llvm::Expected<std::string> chosenPhase(const Target &target) {
  if (emitted.empty())
    return compileTo.getValue();
  llvm::StringRef last = target.emitPhases().back().name;
  if (!compileTo.empty())
    return llvm::createStringError("give --emit or --compile-to, not both");
  if (emitted == kCubin && last == "ptx")
    return last.str();
  if (emitted != last)
    return llvm::createStringError("target " + target.name() + " gives out \"" + last + "\", not \"" + emitted +
                                   "\"; --compile-to stops at a phase before");
  return emitted.getValue();
}

static llvm::Error readText(const std::string &name, std::string &text) {
  auto file = llvm::MemoryBuffer::getFileOrSTDIN(name);
  if (!file)
    return llvm::createStringError("cannot read " + name + ": " + file.getError().message());
  text = (*file)->getBuffer().str();
  return llvm::Error::success();
}

// The texts that the options name.
static llvm::Error readTexts(CompileInput &input) {
  if (!scoreFile.empty())
    if (llvm::Error error = readText(scoreFile, input.score))
      return error;
  if (!request.empty())
    return llvm::Error::success();
  if (inputFile.empty())
    return llvm::createStringError("give a module file or --request; see kvqc --help");
  input.sourceName = inputFile;
  return readText(inputFile, input.source);
}

// Machine code of the PTX that a target gave out.
static llvm::Error makeCubin(const Target &target, CompileResult &result) {
  auto nvrtc = kvq::Nvrtc::load();
  if (!nvrtc.isOk())
    return llvm::createStringError(nvrtc.status().message());
  std::string arch = llvm::StringRef(target.name()).split(':').second.split('+').first.str();
  auto cubin = nvrtc.value()->compilePtx(result.output, kEntryName.str(), arch);
  if (!cubin.isOk())
    return llvm::createStringError(cubin.status().message());
  result.output.assign(cubin.value().bytes.begin(), cubin.value().bytes.end());
  return llvm::Error::success();
}

static int writeOutput(const CompileResult &result) {
  if (timing)
    llvm::errs() << "compiled in " << llvm::format("%.1f", result.milliseconds) << " ms\n";
  std::error_code error;
  llvm::ToolOutputFile out(output, error, llvm::sys::fs::OF_None);
  if (error)
    return fail("cannot write " + output + ": " + error.message());
  out.os() << result.output;
  out.keep();
  return 0;
}

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  // Every back end of this LLVM: kvqc also compiles for machines that are not this one.
  llvm::InitializeAllTargetInfos();
  llvm::InitializeAllTargets();
  llvm::InitializeAllTargetMCs();
  llvm::InitializeAllAsmPrinters();
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(argc, argv, "kvqc: compile a kvq kernel\n");
  if (listLevels)
    return printLevels(), 0;
  if (listTargets)
    return printTargets(), 0;
  auto target = chosenTarget();
  if (!target)
    return fail(llvm::toString(target.takeError()));
  if (listPhases)
    return printPhases(**target), 0;
  if (listSchedules)
    return printSchedules(**target);
  auto phase = chosenPhase(**target);
  if (!phase)
    return fail(llvm::toString(phase.takeError()));
  CompileInput input;
  input.target = *target;
  input.startAt = compileFrom;
  input.stopAfter = *phase;
  input.request = request;
  input.schedule = scheduleText;
  input.writeBundle = !noBundle;
  if (llvm::Error error = readTexts(input))
    return fail(llvm::toString(std::move(error)));
  std::string dumpError;
  if (!dumpPhases.empty())
    input.onPhase = [&](size_t place, const PhaseInfo &info, const std::string &text) {
      if (auto error = dumpPhase(place, info, text))
        dumpError = llvm::toString(std::move(error));
    };
  auto result = compile(input);
  if (!result)
    return fail(withFile(llvm::toString(result.takeError())));
  if (!dumpError.empty())
    return fail(dumpError);
  if (emitted == kCubin)
    if (llvm::Error error = makeCubin(**target, *result))
      return fail(llvm::toString(std::move(error)));
  return writeOutput(*result);
}
