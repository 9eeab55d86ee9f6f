// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/tool/arguments.h"

#include "runtime/ptxsim/gpu/option_text.h"

#include <algorithm>

namespace kvq::ptxsim {

const char *const kUsage =
    R"(usage: ptx-run FILE.ptx --grid X[,Y[,Z]] --block X[,Y[,Z]] [--kernel NAME] [--shared BYTES] --arg SPEC ..

Runs a kernel of a PTX file without a GPU, and says what was wrong and what it cost.

SPEC, one for each parameter of the kernel, in order:
  T:VALUE                          a scalar; T is one of s8 u8 s16 u16 s32 u32 s64 u64 f16 bf16 f32 f64; VALUE is
                                   decimal, a float, or the bits as 0x..
  in:FILE.npy                      a pointer to a buffer with the array, which the kernel may not write
  inout:FILE.npy[:OUT.npy]         the same, writable, written to OUT.npy afterwards
  out:DTYPE:SHAPE:OUT.npy          an uninitialised buffer; DTYPE as NumPy names it, SHAPE like 4x64
  fill:VALUE:DTYPE:SHAPE[:OUT.npy] a writable buffer filled with VALUE
  bytes:FILE                       a struct by value: the bytes of the file

  --checks LIST                    all (default), none, or names with commas between, "-" in front leaves one out:
                                   bounds align uninit-register uninit-memory shared-race warp-race (off by default)
                                   global-race in-flight barrier mask collective
  --schedule reconverge|lowest-pc  reconvergence at post-dominators (default), or the lowest line first
  --seed N                         orders of warps and blocks, disturbances (default 0: natural order)
  --mma exact|sequential|truncate  accumulation of matrix products (default exact, rounded once)
  --subnormals keep|flush          fp16 subnormal inputs of mma (default keep)
  --approx exact|ulp               ulp: approximate functions are moved by up to 2 ulp
  --cp-async latest|earliest|random when asynchronous copies arrive (default latest: at the wait)
  --threads N                      host threads (default 1)
  --limit N                        give up after N warp instructions (default 10^10)
  --max-findings N                 (default 20)
  --json FILE                      the report as JSON; "-": on stdout, instead of the table
  --list                           the PTX text with executions beside each line
  --quiet                          nothing on stdout but what was asked for

Exit status: 0 clean, 1 findings, 2 the module or the command line was refused, 3 deadlock, trap or limit.
)";

namespace {

Status invalid(const std::string &what) { return {Code::InvalidArgument, what}; }

std::vector<std::string> split(const std::string &text, char separator) {
  std::vector<std::string> parts;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

template <typename Value> Status assign(Value &to, const std::string &text, uint64_t least, uint64_t most) {
  auto value = parseNumber(text, least, most);
  if (value.isOk())
    to = static_cast<Value>(value.value());
  return value.status();
}

Status assignDim(Dim &to, const std::string &text) {
  const std::vector<std::string> parts = split(text, ',');
  if (parts.size() > 3)
    return invalid("'" + text + "' has " + std::to_string(parts.size()) + " sizes: give one to three");
  uint32_t sizes[3] = {1, 1, 1};
  for (size_t i = 0; i < parts.size(); ++i)
    KVQ_RETURN_IF_ERROR(assign(sizes[i], parts[i], 1, UINT32_MAX));
  to = {sizes[0], sizes[1], sizes[2]};
  return Status::ok();
}

Status parseTypeAndShape(const std::string &type, const std::string &shape, ParameterSpec &spec) {
  spec.type = numpyType(type);
  if (!spec.type)
    return invalid("there is no element type '" + type + "': use one of " + numpyNames());
  for (const std::string &size : split(shape, 'x'))
    KVQ_RETURN_IF_ERROR(assign(spec.shape.emplace_back(), size, 0, uint64_t(1) << 40));
  return Status::ok();
}

Status parseBuffer(const std::vector<std::string> &parts, ParameterSpec &spec) {
  using Kind = ParameterSpec::Kind;
  const std::string &word = parts[0];
  if (word == "inout") {
    spec.kind = Kind::InOut;
    if (parts.size() < 2 || parts.size() > 3)
      return invalid("it must read inout:FILE.npy[:OUT.npy]");
    spec.file = parts[1];
    spec.output = parts.size() == 3 ? parts[2] : "";
    return Status::ok();
  }
  if (word == "out") {
    spec.kind = Kind::Out;
    if (parts.size() != 4)
      return invalid("it must read out:DTYPE:SHAPE:OUT.npy");
    spec.output = parts[3];
    return parseTypeAndShape(parts[1], parts[2], spec);
  }
  spec.kind = Kind::Fill;
  if (parts.size() < 4 || parts.size() > 5)
    return invalid("it must read fill:VALUE:DTYPE:SHAPE[:OUT.npy]");
  spec.output = parts.size() == 5 ? parts[4] : "";
  KVQ_RETURN_IF_ERROR(parseTypeAndShape(parts[2], parts[3], spec));
  auto value = encode(*spec.type, parts[1]);
  if (value.isOk())
    spec.value = std::move(value.value());
  return value.status();
}

Status parseSpec(ParameterSpec &spec) {
  using Kind = ParameterSpec::Kind;
  const size_t colon = spec.text.find(':');
  if (colon == std::string::npos)
    return invalid("it must read T:VALUE, in:FILE, inout:FILE, out:.., fill:.. or bytes:FILE");
  const std::string word = spec.text.substr(0, colon), rest = spec.text.substr(colon + 1);
  if (word == "in" || word == "bytes") { // the only name in it: it may have colons
    spec.kind = word == "in" ? Kind::In : Kind::Bytes;
    spec.file = rest;
    return rest.empty() ? invalid("it names no file") : Status::ok();
  }
  if (word == "inout" || word == "out" || word == "fill")
    return parseBuffer(split(spec.text, ':'), spec);
  spec.type = ptxType(word);
  if (!spec.type)
    return invalid("there is no scalar type '" + word + "': use one of " + ptxNames());
  auto value = encode(*spec.type, rest);
  if (value.isOk())
    spec.value = std::move(value.value());
  return value.status();
}

// An option for which takesValue() holds.
Status setValue(Command &command, const std::string &word, const std::string &value) {
  if (word == "--grid")
    return assignDim(command.grid, value);
  if (word == "--block")
    return assignDim(command.block, value);
  if (word == "--shared")
    return assign(command.shared, value, 0, 1 << 30);
  if (word == "--kernel" || word == "--json") {
    (word == "--kernel" ? command.kernel : command.json) = value;
    return Status::ok();
  }
  if (word != "--arg")
    return setOption(command.options, std::string_view(word).substr(2), value);
  auto spec = parseParameter(value);
  if (spec.isOk())
    command.parameters.push_back(std::move(spec.value()));
  return spec.status();
}

bool takesValue(const std::string &word) {
  constexpr std::string_view kOwn[] = {"--grid", "--block", "--shared", "--kernel", "--json", "--arg"};
  const auto names = optionNames();
  return std::find(std::begin(kOwn), std::end(kOwn), word) != std::end(kOwn) ||
         (word.starts_with("--") && std::find(names.begin(), names.end(), word.substr(2)) != names.end());
}

} // namespace

Result<ParameterSpec> parseParameter(const std::string &text) {
  ParameterSpec spec;
  spec.text = text;
  if (Status status = parseSpec(spec); !status.isOk())
    return Status(status.code(), "'" + text + "': " + status.message());
  return spec;
}

Result<Command> parseCommand(const std::vector<std::string> &words) {
  Command command;
  bool grid = false, block = false;
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string &word = words[i];
    if (word == "--help" || word == "-h") {
      command.help = true;
      return command;
    }
    if (word == "--list" || word == "--quiet") {
      (word == "--list" ? command.list : command.quiet) = true;
    } else if (takesValue(word)) {
      if (++i == words.size())
        return invalid(word + " has no value");
      if (Status status = setValue(command, word, words[i]); !status.isOk())
        return Status(status.code(), word + ": " + status.message());
      grid |= word == "--grid";
      block |= word == "--block";
    } else if (word.starts_with("-")) {
      return invalid("there is no option " + word + ": see ptx-run --help");
    } else if (!command.file.empty()) {
      return invalid("there are two files, " + command.file + " and " + word + ": give one");
    } else {
      command.file = word;
    }
  }
  if (command.file.empty())
    return invalid("no PTX file is given: see ptx-run --help");
  if (!grid || !block)
    return invalid(std::string(grid ? "--block" : "--grid") + " is missing");
  if (command.list && command.json == "-")
    return invalid("--list and --json - both write to stdout: give --json a file");
  return command;
}

} // namespace kvq::ptxsim
