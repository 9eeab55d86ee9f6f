// SPDX-License-Identifier: Apache-2.0
//
// What goes where: variables of the module that nobody outside can name move into the body, where PTX allows them as
// well. Those that others can name, and shared memory of the size that the launch gives, have no place in a body: they
// are declared in C++. NVRTC keeps such names, but as local symbols of the cubin. NVRTC names the parameters of a
// kernel k as k_param_0 and so on, as LLVM does.
#include "runtime/jit/ptx_wrapper.h"

#include "runtime/format/text.h"
#include "runtime/jit/ptx_inline.h"

#include <map>
#include <set>

namespace kvq {

namespace {

const char *integerOf(int64_t bytes) {
  return bytes == 1   ? "unsigned char"
         : bytes == 2 ? "unsigned short"
         : bytes == 4 ? "unsigned int"
                      : "unsigned long long";
}

bool isDynamicShared(const PtxVariable &variable) {
  return variable.space == ".shared" && variable.linkage == ".extern";
}
class Wrapper {
public:
  Wrapper(const PtxModule &module, const PtxFunction &entry, uint32_t maxRegisters)
      : module_(module), entry_(entry), maxRegisters_(maxRegisters) {
    const uint32_t own = entry.bounds.maxRegisters;
    if (own && (!maxRegisters_ || own < maxRegisters_))
      maxRegisters_ = own;
  }
  Result<WrappedKernel> wrap();

private:
  void findUsed();
  Status declareParameters();
  Status declareVariables();
  Status defineOutside(const PtxVariable &variable);
  std::string attributes() const;
  Status writeBody();
  void writeToken(const PtxToken &token);
  std::string escape(std::string_view text) const;

  const PtxModule &module_;
  const PtxFunction &entry_;
  uint32_t maxRegisters_;
  std::set<const PtxVariable *> used_;
  std::map<std::string_view, std::string> renamed_;
  std::string declarations_, parameters_, operands_;
  PtxWriter writer_;
};

// The variables that the body names, and those that their initialisers name.
void Wrapper::findUsed() {
  std::map<std::string_view, const PtxVariable *> byName;
  for (const PtxVariable &variable : module_.variables)
    byName[variable.name] = &variable;
  std::vector<TokenRange> left = {entry_.body};
  while (!left.empty()) {
    const TokenRange range = left.back();
    left.pop_back();
    for (size_t i = range.begin; i < range.end; ++i)
      if (auto found = byName.find(module_.tokens[i].text); found != byName.end())
        if (used_.insert(found->second).second)
          left.push_back(found->second->initialiser);
  }
}

Status Wrapper::declareParameters() {
  for (size_t i = 0; i < entry_.parameters.size(); ++i) {
    const PtxVariable &parameter = entry_.parameters[i];
    const std::string number = std::to_string(i);
    if (parameter.space != ".param")
      return module_.error(parameter.line, "a kernel takes parameters of the space .param only");
    std::string type = integerOf(parameter.bytes());
    if (parameter.isArray || parameter.bytes() > 8) {
      if (parameter.bytes() <= 0 || parameter.bytes() > 32764)
        return module_.error(parameter.line, "a parameter must have 1 to 32764 bytes");
      type = "KvqParameter" + number;
      declarations_ += "struct __align__(" + std::to_string(parameter.align) + ") " + type + " { unsigned char bytes[" +
                       std::to_string(parameter.bytes()) + "]; };\n";
    }
    parameters_ += (i ? ", " : "") + type + " p" + number;
    const std::string name = std::string(entry_.name) + "_param_" + number;
    if (name != parameter.name)
      renamed_[parameter.name] = name;
  }
  return Status::ok();
}

// The initialiser's numbers as integers of the element's size.
Status Wrapper::defineOutside(const PtxVariable &variable) {
  if (variable.elementBytes > 8 || variable.bytes() <= 0)
    return module_.error(variable.line,
                         "a variable that others can name must have elements of at most 8 bytes, and a size");
  std::string values;
  int depth = 0;
  for (size_t i = variable.initialiser.begin; i < variable.initialiser.end; ++i) {
    const PtxToken &token = module_.tokens[i];
    const bool isFloat = token.text.starts_with("0f") || token.text.starts_with("0d");
    depth += token.is("{") - token.is("}");
    const bool isPlain =
        depth < 2 && (token.is("{") || token.is("}") || token.is(",") || token.is("-") ||
                      (token.kind == PtxToken::Number && token.text.find('.') == std::string_view::npos));
    if (!isPlain)
      return module_.error(token.line,
                           "the value of a variable that others can name must be one list of integers and 0f.. or "
                           "0d..: " +
                               text::quote(token.text) + " is neither");
    values += isFloat ? "0x" + std::string(token.text.substr(2)) : std::string(token.text);
  }
  declarations_ += "extern \"C\" { " + std::string(variable.space == ".const" ? "__constant__" : "__device__") +
                   " __align__(" + std::to_string(variable.align) + ") " + integerOf(variable.elementBytes) + " " +
                   std::string(variable.name);
  // More dimensions than one lie in memory as one.
  if (variable.isArray)
    declarations_ += "[" + std::to_string(variable.elements) + "]";
  declarations_ += (values.empty() ? "" : " = " + values) + "; }\n";
  return Status::ok();
}

Status Wrapper::declareVariables() {
  int count = 0;
  for (const PtxVariable &variable : module_.variables) {
    if (variable.isNamedOutside()) {
      KVQ_RETURN_IF_ERROR(defineOutside(variable));
    } else if (!used_.count(&variable)) {
      continue;
    } else if (isDynamicShared(variable)) {
      const std::string name = "kvq_shared_" + std::to_string(count++);
      declarations_ +=
          "extern __shared__ __align__(" + std::to_string(variable.align) + ") unsigned char " + name + "[];\n";
      // Without an operand the compiler would drop the declaration.
      operands_ += (operands_.empty() ? "" : ", ") + ("\"l\"(" + name + ")");
      renamed_[variable.name] = name;
    } else if (variable.linkage == ".extern") {
      return module_.error(variable.line, "the module does not define " + text::quote(variable.name));
    }
  }
  return Status::ok();
}

std::string Wrapper::attributes() const {
  const LaunchBounds &bounds = entry_.bounds;
  // NVRTC does not heed a limit of registers where there are launch bounds.
  if (maxRegisters_)
    return "";
  // Without a bound on threads, one on blocks has no place in CUDA C++; 1024 threads are what a GPU takes at most.
  const int64_t threads = bounds.threads() ? bounds.threads() : bounds.minBlocks ? 1024 : 0;
  if (!threads)
    return "";
  return "__launch_bounds__(" + std::to_string(threads) +
         (bounds.minBlocks ? ", " + std::to_string(bounds.minBlocks) : "") + ") ";
}

// An asm statement without operands takes '%' as it is; one with operands takes "%%" for it.
std::string Wrapper::escape(std::string_view text) const {
  std::string escaped;
  for (char c : text) {
    if (c == '"' || c == '\\')
      escaped += '\\';
    escaped += c;
    if (c == '%' && !operands_.empty())
      escaped += c;
  }
  return escaped;
}

void Wrapper::writeToken(const PtxToken &token) {
  auto renamed = renamed_.find(token.text);
  writer_.write(escape(renamed == renamed_.end() ? token.text : renamed->second), token.line, token.spaced);
}

Status Wrapper::writeBody() {
  writer_.write("{", module_.tokens[entry_.body.begin].line);
  for (const PtxVariable &variable : module_.variables) {
    if (!used_.count(&variable) || variable.isNamedOutside() || isDynamicShared(variable))
      continue;
    const size_t skipped = variable.linkage.empty() ? 0 : 1;
    for (size_t i = variable.whole.begin + skipped; i < variable.whole.end; ++i)
      writeToken(module_.tokens[i]);
  }
  for (size_t i = entry_.body.begin + 1; i < entry_.body.end; ++i) {
    const PtxToken &token = module_.tokens[i];
    // Debug information refers to files of the module, which are not there any more.
    if (token.is(".loc")) {
      while (module_.tokens[i + 1].line == token.line && i + 1 < entry_.body.end - 1)
        ++i;
      continue;
    }
    if (token.kind == PtxToken::Name && token.is("call"))
      return module_.error(token.line, "a call that is not inlined cannot be wrapped");
    writeToken(token);
  }
  return Status::ok();
}

Result<WrappedKernel> Wrapper::wrap() {
  findUsed();
  KVQ_RETURN_IF_ERROR(declareParameters());
  KVQ_RETURN_IF_ERROR(declareVariables());
  KVQ_RETURN_IF_ERROR(writeBody());
  PtxText body = writer_.take();
  WrappedKernel wrapped;
  wrapped.source = declarations_ + "extern \"C\" __global__ void " + attributes() + std::string(entry_.name) + "(" +
                   parameters_ + ") {\n  asm volatile(\n";
  std::string_view rest = body.text;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    wrapped.source += "\"" + std::string(rest.substr(0, end)) + "\\n\"\n";
    rest.remove_prefix(end + 1);
  }
  wrapped.source += (operands_.empty() ? "" : ":: " + operands_) + ");\n}\n";
  wrapped.lines = std::move(body.lines);
  wrapped.target = module_.targets.front();
  wrapped.version = module_.version;
  wrapped.maxRegisters = maxRegisters_;
  return wrapped;
}

} // namespace

Result<WrappedKernel> wrapKernel(const PtxModule &module, const PtxFunction &entry, uint32_t maxRegisters) {
  return Wrapper(module, entry, maxRegisters).wrap();
}

Result<WrappedKernel> wrapPtx(std::string_view ptx, std::string_view entry, uint32_t maxRegisters) {
  auto module = PtxModule::parse(ptx);
  if (!module.isOk())
    return module.status();
  auto kernel = module.value().entry(entry);
  if (!kernel.isOk())
    return kernel.status();
  if (!hasCalls(module.value(), *kernel.value()))
    return wrapKernel(module.value(), *kernel.value(), maxRegisters);
  auto inlined = inlineCalls(module.value(), entry);
  if (!inlined.isOk())
    return inlined.status();
  const PtxText &text = inlined.value();
  auto whole = PtxModule::parse(text.text);
  if (!whole.isOk())
    return whole.status();
  kernel = whole.value().entry(entry);
  if (!kernel.isOk())
    return kernel.status();
  auto wrapped = wrapKernel(whole.value(), *kernel.value(), maxRegisters);
  if (wrapped.isOk())
    for (int &line : wrapped.value().lines)
      line = text.lines[static_cast<size_t>(line - 1)];
  return wrapped;
}

} // namespace kvq
