// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/score_hook.h"

#include "runtime/format/text.h"
#include "runtime/jit/late_nvrtc.h"
#include "runtime/jit/ptx_inline.h"

#include <algorithm>
#include <map>
#include <set>

namespace kvq {

namespace {

// A definition with other types is an error in a line of the user's.
constexpr const char *kDeclaration =
    "extern \"C\" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k);\n";

// Names that the hook's module defines for itself, with what they are called beside those of the kernel's module.
std::map<std::string_view, std::string> freshNames(const PtxModule &module, const PtxModule &hook) {
  std::set<std::string_view> taken;
  for (const PtxModule *one : {&module, &hook})
    for (const PtxToken &token : one->tokens)
      taken.insert(token.text);
  std::map<std::string_view, std::string> names;
  const auto choose = [&](std::string_view name) {
    // A name of PTX may begin with a '%', which belongs to its front.
    const bool isPercent = name.starts_with("%");
    std::string prefix = std::string(isPercent ? "%" : "") + "kvq_hook_";
    while (taken.count(prefix + std::string(name.substr(isPercent))))
      prefix += "_";
    names[name] = prefix + std::string(name.substr(isPercent));
  };
  for (const PtxVariable &variable : hook.variables)
    choose(variable.name);
  for (const PtxFunction &function : hook.functions)
    if (function.name != kScoreHook)
      choose(function.name);
  return names;
}

std::string later(std::string_view one, std::string_view other) {
  const auto numbers = [](std::string_view version) {
    const std::vector<std::string_view> parts = text::split(version, '.');
    return std::pair(text::parseDecimal(parts[0]).value_or(0),
                     parts.size() > 1 ? text::parseDecimal(parts[1]).value_or(0) : 0);
  };
  return std::string(numbers(one) < numbers(other) ? other : one);
}

// Everything of `module` but its declaration of the hook, then what `hook` defines.
std::string join(const PtxModule &module, const PtxModule &hook) {
  PtxWriter writer;
  writer.writeLine(".version " + later(module.version, hook.version), 1);
  std::string targets;
  for (std::string_view target : module.targets)
    targets += (targets.empty() ? "" : ", ") + std::string(target);
  writer.writeLine(".target " + targets, 1);
  writer.writeLine(".address_size 64", 1);
  const auto names = freshNames(module, hook);
  const auto copy = [&](const PtxModule &from, TokenRange range) {
    writer.breakLine();
    for (size_t i = range.begin; i < range.end; ++i) {
      const PtxToken &token = from.tokens[i];
      const auto renamed = &from == &hook ? names.find(token.text) : names.end();
      writer.write(renamed == names.end() ? token.text : std::string_view(renamed->second), token.line, token.spaced);
    }
  };
  for (const PtxModule *one : {&module, &hook}) {
    for (const PtxVariable &variable : one->variables) {
      // Nobody outside asks for a variable of the hook.
      const size_t hidden = one == &hook && variable.isNamedOutside() ? 1 : 0;
      copy(*one, {variable.whole.begin + hidden, variable.whole.end});
    }
    for (const PtxFunction &function : one->functions)
      if (function.isDefined() || (one == &module && function.name != kScoreHook))
        copy(*one, function.whole);
  }
  return writer.take().text;
}

bool calls(const PtxModule &module, const PtxFunction &function) {
  const auto begin = module.tokens.begin();
  return std::any_of(begin + static_cast<std::ptrdiff_t>(function.body.begin),
                     begin + static_cast<std::ptrdiff_t>(function.body.end),
                     [](const PtxToken &token) { return token.text == kScoreHook; });
}

Status checkHook(const PtxModule &hook) {
  const PtxFunction *function = hook.find(kScoreHook);
  if (!function || !function->isDefined())
    return {Code::InvalidArgument, std::string("the score function is missing: define ") +
                                       std::string(kDeclaration, std::string_view(kDeclaration).size() - 2)};
  for (const PtxFunction &called : hook.functions)
    if (!hook.find(called.name)->isDefined())
      return {Code::InvalidArgument, "the score function calls " + text::quote(called.name) +
                                         ", which its text does not define: define it, or do without it (there is no "
                                         "printf and no malloc)"};
  return Status::ok();
}

} // namespace

Result<std::string> linkScoreHook(std::string_view ptx, std::string_view hookText) {
  auto module = PtxModule::parse(ptx);
  if (!module.isOk())
    return module.status();
  auto hook = PtxModule::parse(hookText);
  if (!hook.isOk())
    return Status(hook.status().code(), "the score function: " + hook.status().message());
  KVQ_RETURN_IF_ERROR(checkHook(hook.value()));
  if (const PtxFunction *own = module.value().find(kScoreHook); own && own->isDefined())
    return module.value().error(own->line, "the module defines kvq_score_mod itself");
  const auto &functions = module.value().functions;
  if (std::none_of(functions.begin(), functions.end(),
                   [&](const PtxFunction &function) { return calls(module.value(), function); }))
    return Status(Code::InvalidArgument,
                  "no kernel of the PTX calls kvq_score_mod: compile a kernel with a score function");
  const std::string joined = join(module.value(), hook.value());
  auto whole = PtxModule::parse(joined);
  if (!whole.isOk())
    return whole.status();
  auto inlined = inlineCalls(whole.value());
  if (!inlined.isOk())
    return Status(inlined.status().code(), "the score function, " + inlined.status().message());
  return std::move(inlined.value().text);
}

Result<std::string> addScoreHook(const Nvrtc &nvrtc, std::string_view ptx, const std::string &cuda,
                                 const std::string &name, const std::string &arch) {
  std::string file = name;
  std::replace_if(file.begin(), file.end(), [](char c) { return c == '"' || c == '\\' || c == '\n'; }, '_');
  auto hook = nvrtc.compileCuda(kDeclaration + ("#line 1 \"" + file + "\"\n") + cuda + "\n", file, arch);
  if (!hook.isOk())
    return Status(hook.status().code(), "the score function: " + hook.status().message());
  return linkScoreHook(ptx, hook.value());
}

ScoreHookFunction scoreHookFunction(CudaLibrarySearch search) {
  return [late = std::make_shared<LateNvrtc>(std::move(search))](std::string_view ptx, const std::string &cuda,
                                                                 const std::string &name,
                                                                 const std::string &arch) -> Result<std::string> {
    const auto &nvrtc = late->get();
    return nvrtc.isOk() ? addScoreHook(*nvrtc.value(), ptx, cuda, name, arch) : nvrtc.status();
  };
}

} // namespace kvq
