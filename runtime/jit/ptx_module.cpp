// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/ptx_module.h"

#include "runtime/format/text.h"

#include <algorithm>

namespace kvq {

namespace {

bool isLinkage(const PtxToken &token) {
  return token.is(".visible") || token.is(".extern") || token.is(".weak") || token.is(".common");
}
bool isSpace(const PtxToken &token) {
  return token.is(".global") || token.is(".const") || token.is(".shared") || token.is(".local") || token.is(".param") ||
         token.is(".reg");
}

// Declarations of variables, parameters and registers.
class DeclarationReader {
public:
  DeclarationReader(std::string_view text, const std::vector<PtxToken> &tokens, size_t at)
      : text_(text), tokens_(tokens), at_(at) {}
  Result<PtxVariable> readDeclaration(bool isParameter);
  size_t at() const { return at_; }

protected:
  const PtxToken &token() const { return tokens_[std::min(at_, tokens_.size() - 1)]; }
  const PtxToken &take() { return tokens_[at_ < tokens_.size() - 1 ? at_++ : at_]; }
  bool takeIf(std::string_view text) {
    if (!token().is(text))
      return false;
    take();
    return true;
  }
  Status error(int line, const std::string &what) const { return ptxError(text_, line, what); }
  Status expect(std::string_view text) {
    if (takeIf(text))
      return Status::ok();
    return unexpected("'" + std::string(text) + "'");
  }
  Status unexpected(const std::string &wanted) const {
    return error(token().line, "there is " + text::quote(token().text) + " where " + wanted + " should be");
  }
  Result<uint32_t> readNumber();
  Status skipBraces();

private:
  Status readAttributes(PtxVariable &variable, bool isParameter);
  Status readDimensions(PtxVariable &variable);
  Status readInitialiser(PtxVariable &variable);

  std::string_view text_;
  const std::vector<PtxToken> &tokens_;
  size_t at_;
};

class ModuleReader : DeclarationReader {
public:
  explicit ModuleReader(PtxModule &module) : DeclarationReader(module.text, module.tokens, 0), module_(module) {}
  Status readModule();

private:
  Status readItem();
  Status readVersion();
  Status readTarget();
  Status skipFile();
  Status skipSection();
  Status readFunction(std::string_view linkage, size_t begin);
  Status readParameters(std::vector<PtxVariable> &list);
  Status readBound(PtxFunction &function);
  Status readThreads(uint32_t (&threads)[3]);

  PtxModule &module_;
};

Result<uint32_t> DeclarationReader::readNumber() {
  std::string digits(token().text);
  while (!digits.empty() && (digits.back() == 'U' || digits.back() == 'u'))
    digits.pop_back();
  const auto value = text::parseDecimal(digits);
  if (!value)
    return unexpected("a number");
  take();
  return static_cast<uint32_t>(*value);
}

Status ModuleReader::readVersion() {
  if (token().kind != PtxToken::Number)
    return unexpected("a version such as 8.0");
  module_.version = take().text;
  return Status::ok();
}

Status ModuleReader::readTarget() {
  do {
    if (token().kind != PtxToken::Name)
      return unexpected("a target such as sm_80");
    module_.targets.push_back(take().text);
  } while (takeIf(","));
  return Status::ok();
}

// .file 1 "a.cu", 0, 12
Status ModuleReader::skipFile() {
  if (token().kind == PtxToken::Number)
    take();
  if (take().kind != PtxToken::String)
    return error(token().line, "a file without a name");
  while (takeIf(","))
    take();
  return Status::ok();
}

Status DeclarationReader::skipBraces() {
  const int line = token().line;
  KVQ_RETURN_IF_ERROR(expect("{"));
  for (int depth = 1; depth > 0;) {
    const PtxToken &next = take();
    if (next.kind == PtxToken::End)
      return error(line, "a brace that begins here has no end");
    depth += next.is("{") - next.is("}");
  }
  return Status::ok();
}

Status ModuleReader::skipSection() {
  take();
  return skipBraces();
}

Status DeclarationReader::readAttributes(PtxVariable &variable, bool isParameter) {
  for (;;) {
    if (takeIf(".align")) {
      auto align = readNumber();
      if (!align.isOk())
        return align.status();
      // The alignment after .ptr is that of what the parameter points to.
      variable.align = align.value();
    } else if (isParameter && takeIf(".ptr")) {
      while (token().kind == PtxToken::Dotted)
        if (take().is(".align"))
          take();
    } else if (takeIf(".attribute")) {
      while (!token().is(")") && token().kind != PtxToken::End)
        take();
      KVQ_RETURN_IF_ERROR(expect(")"));
    } else if (token().kind == PtxToken::Dotted && variable.type.empty() && ptxTypeBytes(token().text)) {
      variable.type = take().text;
    } else {
      return Status::ok();
    }
  }
}

Status DeclarationReader::readDimensions(PtxVariable &variable) {
  constexpr int64_t kMost = int64_t(1) << 32;
  while (takeIf("[")) {
    variable.isArray = true;
    if (takeIf("]")) {
      variable.elements = 0;
      continue;
    }
    auto size = readNumber();
    if (!size.isOk())
      return size.status();
    variable.elements *= size.value();
    if (variable.elements > kMost)
      return error(variable.line, "a variable of more than 4 GiB");
    KVQ_RETURN_IF_ERROR(expect("]"));
  }
  return Status::ok();
}

Status DeclarationReader::readInitialiser(PtxVariable &variable) {
  variable.initialiser.begin = at_;
  if (token().is("{"))
    KVQ_RETURN_IF_ERROR(skipBraces());
  while (!token().is(";") && !token().is(",") && token().kind != PtxToken::End)
    take();
  variable.initialiser.end = at_;
  return Status::ok();
}

Result<PtxVariable> DeclarationReader::readDeclaration(bool isParameter) {
  PtxVariable variable;
  variable.line = token().line;
  variable.whole.begin = at_;
  if (!isSpace(token()))
    return unexpected("a state space such as .global");
  variable.space = take().text;
  KVQ_RETURN_IF_ERROR(readAttributes(variable, isParameter));
  if (variable.type.empty())
    return unexpected("a type such as .b32 (textures, samplers, vectors and structures are not supported)");
  variable.elementBytes = ptxTypeBytes(variable.type);
  if (!variable.align)
    variable.align = variable.elementBytes;
  if (token().kind != PtxToken::Name)
    return unexpected("a name");
  variable.name = take().text;
  KVQ_RETURN_IF_ERROR(readDimensions(variable));
  if (!isParameter) {
    if (takeIf("="))
      KVQ_RETURN_IF_ERROR(readInitialiser(variable));
    if (token().is(","))
      return error(token().line, "several variables in one declaration are not supported: declare each alone");
    KVQ_RETURN_IF_ERROR(expect(";"));
  }
  variable.whole.end = at_;
  return variable;
}

Status ModuleReader::readParameters(std::vector<PtxVariable> &list) {
  KVQ_RETURN_IF_ERROR(expect("("));
  if (takeIf(")"))
    return Status::ok();
  do {
    auto parameter = readDeclaration(true);
    if (!parameter.isOk())
      return parameter.status();
    list.push_back(parameter.value());
  } while (takeIf(","));
  return expect(")");
}

Status ModuleReader::readThreads(uint32_t (&threads)[3]) {
  for (uint32_t &size : threads)
    size = 1;
  for (int dimension = 0; dimension < 3; ++dimension) {
    auto size = readNumber();
    if (!size.isOk())
      return size.status();
    threads[dimension] = size.value();
    if (!takeIf(","))
      break;
  }
  return Status::ok();
}

Status ModuleReader::readBound(PtxFunction &function) {
  LaunchBounds &bounds = function.bounds;
  const PtxToken &name = take();
  if (name.is(".maxntid"))
    return readThreads(bounds.maxThreads);
  if (name.is(".reqntid"))
    return readThreads(bounds.requiredThreads);
  if (name.is(".noreturn") && !function.isEntry)
    return Status::ok();
  if (!name.is(".minnctapersm") && !name.is(".maxnreg"))
    return error(name.line, "the directive " + text::quote(name.text) + " of a function is not supported");
  auto number = readNumber();
  if (!number.isOk())
    return number.status();
  (name.is(".maxnreg") ? bounds.maxRegisters : bounds.minBlocks) = number.value();
  return Status::ok();
}

Status ModuleReader::readFunction(std::string_view linkage, size_t begin) {
  PtxFunction function;
  function.linkage = linkage;
  function.line = token().line;
  function.whole.begin = begin;
  function.isEntry = take().is(".entry");
  if (!function.isEntry && token().is("("))
    KVQ_RETURN_IF_ERROR(readParameters(function.results));
  if (token().kind != PtxToken::Name)
    return unexpected("the name of a function");
  function.name = take().text;
  if (token().is("("))
    KVQ_RETURN_IF_ERROR(readParameters(function.parameters));
  while (token().kind == PtxToken::Dotted)
    KVQ_RETURN_IF_ERROR(readBound(function));
  if (!takeIf(";")) {
    function.body.begin = at();
    KVQ_RETURN_IF_ERROR(skipBraces());
    function.body.end = at();
  }
  function.whole.end = at();
  module_.functions.push_back(std::move(function));
  return Status::ok();
}

Status ModuleReader::readItem() {
  if (takeIf(".version"))
    return readVersion();
  if (takeIf(".target"))
    return readTarget();
  if (takeIf(".address_size")) {
    const int line = token().line;
    auto bits = readNumber();
    if (!bits.isOk())
      return bits.status();
    return bits.value() == 64 ? Status::ok() : error(line, "addresses must have 64 bits");
  }
  if (takeIf(".file"))
    return skipFile();
  if (takeIf(".section"))
    return skipSection();
  const size_t begin = at();
  std::string_view linkage;
  if (isLinkage(token()))
    linkage = take().text;
  if (token().is(".entry") || token().is(".func"))
    return readFunction(linkage, begin);
  if (!isSpace(token()))
    return unexpected("a function or a variable of the module");
  auto variable = readDeclaration(false);
  if (!variable.isOk())
    return variable.status();
  variable.value().linkage = linkage;
  variable.value().whole.begin = begin;
  module_.variables.push_back(variable.value());
  return Status::ok();
}

Status ModuleReader::readModule() {
  while (token().kind != PtxToken::End)
    KVQ_RETURN_IF_ERROR(readItem());
  if (module_.version.empty() || module_.targets.empty())
    return {Code::InvalidArgument, "this is no PTX module: it has no .version and .target"};
  return Status::ok();
}

} // namespace

int64_t ptxTypeBytes(std::string_view type) {
  if (type == ".pred")
    return 1;
  if (type == ".f16x2" || type == ".bf16x2")
    return 4;
  if (type == ".bf16")
    return 2;
  if (type.size() < 3 || type[0] != '.' || std::string_view("bsuf").find(type[1]) == std::string_view::npos)
    return 0;
  const auto bits = text::parseDecimal(type.substr(2));
  const bool known = bits && (*bits == 8 || *bits == 16 || *bits == 32 || *bits == 64 || *bits == 128);
  return known ? *bits / 8 : 0;
}

int64_t LaunchBounds::threads() const {
  const auto product = [](const uint32_t (&sizes)[3]) { return int64_t(sizes[0]) * sizes[1] * sizes[2]; };
  return requiredThreads[0] ? product(requiredThreads) : product(maxThreads);
}

Result<PtxModule> PtxModule::parse(std::string_view text) {
  PtxModule module;
  module.text = text;
  auto tokens = splitPtx(text);
  if (!tokens.isOk())
    return tokens.status();
  module.tokens = std::move(tokens.value());
  KVQ_RETURN_IF_ERROR(ModuleReader(module).readModule());
  return module;
}

const PtxFunction *PtxModule::find(std::string_view name) const {
  const PtxFunction *found = nullptr;
  for (const PtxFunction &function : functions)
    if (function.name == name && (!found || function.isDefined()))
      found = &function;
  return found;
}

Result<const PtxFunction *> PtxModule::entry(std::string_view name) const {
  std::string names;
  for (const PtxFunction &function : functions) {
    if (!function.isEntry || !function.isDefined())
      continue;
    if (function.name == name)
      return &function;
    names += (names.empty() ? "" : ", ") + std::string(function.name);
  }
  return Status(Code::InvalidArgument, "the PTX has no kernel " + text::quote(name) +
                                           (names.empty() ? ": it has none at all" : ": it has " + names));
}

Result<PtxVariable> readVariable(const PtxModule &module, size_t &at) {
  DeclarationReader reader(module.text, module.tokens, at);
  auto variable = reader.readDeclaration(false);
  at = reader.at();
  return variable;
}

} // namespace kvq
