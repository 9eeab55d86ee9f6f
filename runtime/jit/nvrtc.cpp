// SPDX-License-Identifier: Apache-2.0
//
// NVRTC's interface is declared here by hand, as far as it is used: its header may not be passed on, and plain exported
// names with these types are in all of its versions from 12.0 on.
#include "runtime/jit/nvrtc.h"

#include "runtime/format/text.h"
#include "runtime/jit/ptx_inline.h"
#include "runtime/jit/ptx_wrapper.h"

#include <algorithm>
#include <filesystem>

struct _nvrtcProgram; // NVRTC's own name: a function's type is the same for both sides

namespace kvq {

namespace {

using Program = ::_nvrtcProgram;

constexpr CudaLibraryName kLibrary = {"NVRTC", "libnvrtc.so", "KVQ_NVRTC", "cuda_nvrtc", "nvidia-cuda-nvrtc"};
constexpr int kOldestMajor = 12;
constexpr const char *kKernelFile = "kernel.cu";
constexpr int kCompilationFailed = 6; // NVRTC_ERROR_COMPILATION

// What a user's CUDA C++ may include; NVRTC brings functions of mathematics along, but no header.
constexpr const char *kHeaderNames[] = {"stdint.h", "cstdint", "math.h", "cmath"};
constexpr const char *kIntegers = R"(#pragma once
typedef signed char int8_t; typedef short int16_t; typedef int int32_t; typedef long long int64_t;
typedef unsigned char uint8_t; typedef unsigned short uint16_t; typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
)";
constexpr const char *kMathematics = "#pragma once\n";
constexpr const char *kHeaders[] = {kIntegers, kIntegers, kMathematics, kMathematics};
// Macros of math.h, which a score function uses without thinking of a header.
constexpr const char *kMacros[] = {"-DINFINITY=__int_as_float(0x7f800000)", "-DNAN=__int_as_float(0x7fffffff)"};

// "sm_90a": 90 and 'a'. 0: it is no architecture.
struct Arch {
  int number = 0;
  char suffix = '\0';
};

Arch parseArch(std::string_view text) {
  Arch arch;
  if (!text.starts_with("sm_"))
    return arch;
  text.remove_prefix(3);
  if (!text.empty() && (text.back() == 'a' || text.back() == 'f')) {
    arch.suffix = text.back();
    text.remove_suffix(1);
  }
  arch.number = text::parseDecimal(text).value_or(0);
  return arch;
}

// Whether code for `target` runs on `arch`: a later one of all; exactly this one ('a'); a later one of its family
// ('f').
bool runsOn(const Arch &target, const Arch &arch) {
  if (target.suffix == 'a')
    return arch.suffix == 'a' && arch.number == target.number;
  if (target.suffix == 'f')
    return arch.suffix != '\0' && arch.number >= target.number && arch.number / 10 == target.number / 10;
  return arch.number >= target.number;
}

Status checkTarget(const std::string &target, const std::string &arch) {
  if (runsOn(parseArch(target), parseArch(arch)))
    return Status::ok();
  return {Code::Unsupported,
          "the PTX is for " + target + " and cannot be compiled for " + arch + ": generate it for " + arch};
}

std::vector<std::string_view> linesOf(std::string_view text) { return text::split(text, '\n'); }

// The value of .version, "" where there is none.
std::string versionOf(std::string_view ptx) {
  constexpr std::string_view kDirective = "\n.version ";
  const size_t at = ptx.find(kDirective);
  if (at == std::string_view::npos)
    return {};
  ptx.remove_prefix(at + kDirective.size());
  return std::string(ptx.substr(0, ptx.find_first_not_of("0123456789.")));
}

bool isNewer(std::string_view version, std::string_view than) {
  const auto numbers = [](std::string_view text) {
    const std::string_view major = text::leadingDigits(text);
    const std::string_view minor = text.substr(std::min(major.size() + 1, text.size()));
    return std::pair(text::parseDecimal(major).value_or(0), text::parseDecimal(minor).value_or(0));
  };
  return !than.empty() && numbers(version) > numbers(than);
}

// An error of ptxas within NVRTC: "ptxas application ptx input, line 28; error   : Not a name of ...".
struct AssemblerError {
  int line = 0; // of NVRTC's own PTX; 0: none
  std::string message;
};

// The first error; others of the same line are joined to it.
AssemblerError firstAssemblerError(std::string_view log) {
  AssemblerError first;
  for (std::string_view line : linesOf(log)) {
    const size_t kind = std::min(line.find("error   : "), line.find("fatal   : "));
    if (!line.starts_with("ptxas") || kind == std::string_view::npos)
      continue;
    const size_t at = line.find(", line ");
    const int number = at < kind ? text::parseDecimal(text::leadingDigits(line.substr(at + 7))).value_or(0) : 0;
    const std::string_view message = line.substr(kind + 10);
    if (first.message.empty())
      first = {number, std::string(message)};
    else if (number && number == first.line)
      first.message += "; " + std::string(message);
  }
  return first;
}

} // namespace

struct Nvrtc::Calls {
  int (*version)(int *, int *);
  const char *(*errorString)(int);
  int (*archCount)(int *);
  int (*archs)(int *);
  int (*create)(Program **, const char *, const char *, int, const char *const *, const char *const *);
  int (*destroy)(Program **);
  int (*compile)(Program *, int, const char *const *);
  int (*logSize)(Program *, size_t *);
  int (*log)(Program *, char *);
  int (*ptxSize)(Program *, size_t *);
  int (*ptx)(Program *, char *);
  int (*cubinSize)(Program *, size_t *);
  int (*cubin)(Program *, char *);

  // The name of what the library does not have, or NULL.
  const char *find(const Library &library);
};

struct Nvrtc::Output {
  int code = 0; // NVRTC's; 0: compiled
  std::string bytes, log;
};

const char *Nvrtc::Calls::find(const Library &library) {
  const char *missing = nullptr;
  const auto get = [&](const char *name, auto &function) {
    if (!library.find(name, function) && !missing)
      missing = name;
  };
  get("nvrtcVersion", version);
  get("nvrtcGetErrorString", errorString);
  get("nvrtcGetNumSupportedArchs", archCount);
  get("nvrtcGetSupportedArchs", archs);
  get("nvrtcCreateProgram", create);
  get("nvrtcDestroyProgram", destroy);
  get("nvrtcCompileProgram", compile);
  get("nvrtcGetProgramLogSize", logSize);
  get("nvrtcGetProgramLog", log);
  get("nvrtcGetPTXSize", ptxSize);
  get("nvrtcGetPTX", ptx);
  get("nvrtcGetCUBINSize", cubinSize);
  get("nvrtcGetCUBIN", cubin);
  return missing;
}

Status Nvrtc::bind(const Library &library) {
  auto calls = std::make_shared<Calls>();
  const char *missing = calls->find(library);
  const bool tellsVersion = calls->version && calls->version(&major_, &minor_) == 0;
  if (!tellsVersion)
    return {Code::Unsupported, file_ + " is no NVRTC (it does not answer nvrtcVersion): set KVQ_NVRTC to libnvrtc.so." +
                                   std::to_string(kCudaMajors[0])};
  if (missing || major_ < kOldestMajor)
    return {Code::Unsupported, file_ + " is NVRTC " + version() + (missing ? std::string(" without ") + missing : "") +
                                   " but one from " + std::to_string(kOldestMajor) +
                                   ".0 on is needed: pip install nvidia-cuda-nvrtc"};
  int count = 0;
  if (calls->archCount(&count) == 0 && count > 0) {
    archs_.resize(static_cast<size_t>(count));
    if (calls->archs(archs_.data()) != 0)
      archs_.clear();
  }
  calls_ = std::move(calls);
  return Status::ok();
}

// The library opens its second half by name alone, which fails unless it is loaded already or stands in a folder of the
// system.
Status Nvrtc::loadBuiltins() const {
  const std::string builtins = "libnvrtc-builtins.so." + version();
  auto beside = Library::open(std::filesystem::path(file_).parent_path() / builtins);
  if (beside.isOk() || Library::open(builtins).isOk())
    return Status::ok();
  return {Code::Unsupported, builtins + " is missing beside " + file_ + " (" + beside.status().message() +
                                 "): reinstall nvidia-cuda-nvrtc"};
}

Result<std::shared_ptr<const Nvrtc>> Nvrtc::load(const CudaLibrarySearch &search) {
  auto library = openCudaLibrary(kLibrary, search);
  if (!library.isOk())
    return library.status();
  std::shared_ptr<Nvrtc> nvrtc(new Nvrtc);
  nvrtc->file_ = library.value().file();
  KVQ_RETURN_IF_ERROR(nvrtc->bind(library.value()));
  KVQ_RETURN_IF_ERROR(nvrtc->loadBuiltins());
  std::error_code none;
  nvrtc->identity_ = "nvrtc " + nvrtc->version() + " " + std::to_string(std::filesystem::file_size(nvrtc->file_, none));
  return std::shared_ptr<const Nvrtc>(std::move(nvrtc));
}

Nvrtc::Output Nvrtc::compile(const std::string &source, const std::string &name,
                             const std::vector<std::string> &options, bool toPtx) const {
  Output output;
  Program *program = nullptr;
  output.code = calls_->create(&program, source.c_str(), name.c_str(), std::size(kHeaders), kHeaders, kHeaderNames);
  if (output.code != 0)
    return output;
  std::vector<const char *> words;
  for (const std::string &option : options)
    words.push_back(option.c_str());
  output.code = calls_->compile(program, static_cast<int>(words.size()), words.data());
  const auto fetch = [&](auto size, auto content, std::string &out) {
    size_t bytes = 0;
    int code = size(program, &bytes);
    out.resize(bytes);
    if (code == 0 && bytes)
      code = content(program, out.data());
    return code;
  };
  (void)fetch(calls_->logSize, calls_->log, output.log);
  output.log.resize(output.log.find_last_not_of(std::string("\0\n", 2)) + 1);
  if (output.code == 0)
    output.code = toPtx ? fetch(calls_->ptxSize, calls_->ptx, output.bytes)
                        : fetch(calls_->cubinSize, calls_->cubin, output.bytes);
  // The size of PTX counts a NUL.
  if (toPtx && output.bytes.ends_with('\0'))
    output.bytes.pop_back();
  (void)calls_->destroy(&program);
  return output;
}

Status Nvrtc::checkArch(const std::string &arch) const {
  const Arch parsed = parseArch(arch);
  if (!parsed.number)
    return {Code::InvalidArgument, text::quote(arch) + " is no architecture of a GPU: write one such as sm_80"};
  if (archs_.empty() || std::find(archs_.begin(), archs_.end(), parsed.number) != archs_.end())
    return Status::ok();
  std::string known;
  for (int number : archs_)
    known += (known.empty() ? "sm_" : ", sm_") + std::to_string(number);
  return {Code::Unsupported, "NVRTC " + version() + " does not compile for " + arch + ": use one of " + known +
                                 " or install a newer nvidia-cuda-nvrtc"};
}

// Why a wrapped kernel was not compiled. An error of the assembler counts lines of the PTX that NVRTC made of the
// source: made once more, it tells which line of the asm text that is.
Status Nvrtc::explain(const Output &failed, const WrappedKernel &wrapped, std::string_view ptx,
                      const std::string &entry, const std::string &arch) const {
  const std::string kernel = "kernel " + entry + " cannot be compiled for " + arch + ": ";
  const AssemblerError error = firstAssemblerError(failed.log);
  if (failed.code != kCompilationFailed)
    return {Code::Internal, kernel + "NVRTC says " + calls_->errorString(failed.code) + " " + failed.log};
  if (error.message.empty())
    return {Code::InvalidArgument, kernel + failed.log.substr(0, failed.log.find('\n'))};
  if (!error.line)
    return {Code::Unsupported, kernel + error.message};
  const Output made = compile(wrapped.source, kKernelFile, {"-arch=compute_" + arch.substr(3)}, true);
  const std::string known = versionOf(made.bytes);
  const std::string newer = isNewer(wrapped.version, known)
                                ? " (it has version " + wrapped.version + ", and NVRTC " + version() +
                                      " knows PTX up to " + known + ": a newer nvidia-cuda-nvrtc may take it)"
                                : "";
  const std::vector<std::string_view> text = linesOf(made.bytes);
  const auto begin = std::find_if(text.begin(), text.end(), [](std::string_view line) {
    return line.find("// begin inline asm") != std::string_view::npos;
  });
  // Lines count from 1, and the asm text begins after the mark.
  const auto index = error.line - (begin - text.begin()) - 2;
  if (begin == text.end() || index < 0 || static_cast<size_t>(index) >= wrapped.lines.size())
    return {Code::InvalidArgument, kernel + error.message + newer};
  const Status placed = ptxError(ptx, wrapped.lines[static_cast<size_t>(index)], error.message);
  return {Code::InvalidArgument, kernel + placed.message() + newer};
}

Result<CubinBinary> Nvrtc::compilePtx(std::string_view ptx, const std::string &entry, const std::string &arch,
                                      const CubinOptions &options) const {
  KVQ_RETURN_IF_ERROR(checkArch(arch));
  auto wrapped = wrapPtx(ptx, entry, options.maxRegisters);
  if (!wrapped.isOk())
    return wrapped.status();
  KVQ_RETURN_IF_ERROR(checkTarget(wrapped.value().target, arch));
  std::vector<std::string> words = {"-arch=" + arch, "-Xptxas=-v"};
  if (wrapped.value().maxRegisters)
    words.push_back("-maxrregcount=" + std::to_string(wrapped.value().maxRegisters));
  Output output = compile(wrapped.value().source, kKernelFile, words, false);
  if (output.code != 0)
    return explain(output, wrapped.value(), ptx, entry, arch);
  return CubinBinary{{output.bytes.begin(), output.bytes.end()}, std::move(output.log)};
}

Result<std::string> Nvrtc::compileCuda(const std::string &source, const std::string &name,
                                       const std::string &arch) const {
  KVQ_RETURN_IF_ERROR(checkArch(arch));
  // Without -rdc=true a function that no kernel calls vanishes.
  std::vector<std::string> words = {"-arch=compute_" + arch.substr(3), "-rdc=true", "-std=c++17"};
  words.insert(words.end(), std::begin(kMacros), std::end(kMacros));
  Output output = compile(source, name, words, true);
  if (output.code == 0)
    return std::move(output.bytes);
  if (output.code != kCompilationFailed)
    return Status(Code::Internal, std::string("NVRTC says ") + calls_->errorString(output.code) + " " + output.log);
  const std::vector<std::string_view> lines = linesOf(output.log);
  const auto error = std::find_if(lines.begin(), lines.end(),
                                  [](std::string_view line) { return line.find("error") != std::string_view::npos; });
  return Status(Code::InvalidArgument, std::string(error == lines.end() ? output.log : *error));
}

} // namespace kvq
