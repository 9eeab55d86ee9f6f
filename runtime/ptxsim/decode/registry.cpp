// SPDX-License-Identifier: Apache-2.0
#include "runtime/ptxsim/decode/registry.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string_view>

namespace kvq::ptxsim {

namespace {

constexpr std::pair<const char *, Type> kTypeNames[] = {
    {"pred", Type::Pred}, {"b8", Type::B8},         {"b16", Type::B16}, {"b32", Type::B32}, {"b64", Type::B64},
    {"u8", Type::U8},     {"u16", Type::U16},       {"u32", Type::U32}, {"u64", Type::U64}, {"s8", Type::S8},
    {"s16", Type::S16},   {"s32", Type::S32},       {"s64", Type::S64}, {"f16", Type::F16}, {"f16x2", Type::F16x2},
    {"bf16", Type::BF16}, {"bf16x2", Type::BF16x2}, {"f32", Type::F32}, {"f64", Type::F64}};

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const size_t end = text.find(separator);
    if (end != 0 || separator != ' ')
      parts.push_back(text.substr(0, end));
    if (end == std::string_view::npos)
      break;
    text.remove_prefix(end + 1);
  }
  std::erase_if(parts, [&](std::string_view part) { return separator == ' ' && part.empty(); });
  return parts;
}

// The types that begin like f16x2 would be read as vectors of f16 otherwise: the longest name wins.
Type takeType(std::string_view &text) {
  Type found = Type::None;
  size_t length = 0;
  for (const auto &[name, type] : kTypeNames)
    if (text.starts_with(name) && std::strlen(name) > length) {
      found = type;
      length = std::strlen(name);
    }
  text.remove_prefix(length);
  return found;
}

OperandSpec parseSpec(std::string_view text) {
  OperandSpec spec;
  if (text.ends_with('?')) {
    spec.optional = true;
    text.remove_suffix(1);
  }
  if (text == "addr" || text == "imm" || text == "sym") {
    spec.kind = text == "addr" ? OperandKind::Address : text == "imm" ? OperandKind::Immediate : OperandKind::Symbol;
    return spec;
  }
  spec.type = takeType(text);
  if (text.starts_with('x')) {
    spec.vector = text[1] - '0';
    text.remove_prefix(2);
  }
  if (text.starts_with('*')) {
    spec.wide = true;
    text.remove_prefix(1);
  }
  if (text.starts_with('|')) {
    text.remove_prefix(1);
    spec.second = takeType(text);
  }
  assert(spec.type != Type::None && text.empty() && "a mistake in the operands of a form");
  return spec;
}

// Whether a name, or with `prefix` the beginning of one, is of the pattern; choice takes which alternatives it takes.
bool matches(std::string_view pattern, std::string_view name, std::vector<int> &choice, bool prefix) {
  const size_t open = pattern.find_first_of("[{");
  const std::string_view literal = pattern.substr(0, open);
  if (prefix && name.size() < literal.size())
    return literal.starts_with(name) && literal[name.size()] == '.';
  if (!name.starts_with(literal))
    return false;
  name.remove_prefix(literal.size());
  if (open == std::string_view::npos)
    return name.empty();
  const bool optional = pattern[open] == '[';
  const size_t close = pattern.find(optional ? ']' : '}', open);
  assert(close != std::string_view::npos && "a group of a pattern is not closed");
  const std::string_view rest = pattern.substr(close + 1);
  const size_t depth = choice.size();
  const auto tryOne = [&](int index, std::string_view alternative) {
    choice.resize(depth);
    choice.push_back(index);
    if (prefix && name.size() < alternative.size())
      return alternative.starts_with(name) && (name.empty() || alternative[name.size()] == '.');
    return name.starts_with(alternative) && matches(rest, name.substr(alternative.size()), choice, prefix);
  };
  if (prefix && name.empty())
    return true;
  if (optional && tryOne(-1, ""))
    return true;
  int index = 0;
  for (std::string_view alternative : split(pattern.substr(open + 1, close - open - 1), '|'))
    if (tryOne(index++, alternative))
      return true;
  return false;
}

// The opcodes that a pattern begins with: one, or those of a choice.
std::vector<std::string> opcodesOf(std::string_view pattern) {
  if (pattern.starts_with('{')) {
    std::vector<std::string> all;
    for (std::string_view alternative : split(pattern.substr(1, pattern.find('}') - 1), '|'))
      all.emplace_back(alternative);
    return all;
  }
  return {std::string(pattern.substr(0, pattern.find_first_of(".[{")))};
}

std::string opcodeOf(const std::string &name) { return name.substr(0, name.find('.')); }

void parseOperands(const char *text, Form &form) {
  const std::string_view all = text;
  const size_t equals = all.find('=');
  assert(equals != std::string_view::npos && "operands are written results = sources");
  for (std::string_view part : split(all.substr(0, equals), ' '))
    form.results.push_back(parseSpec(part));
  for (std::string_view part : split(all.substr(equals + 1), ' '))
    form.sources.push_back(parseSpec(part));
}

} // namespace

bool Form::has(const char *modifier) const {
  for (std::string_view part : split(name, '.'))
    if (part == modifier)
      return true;
  return false;
}

Table::Added Table::add(const char *pattern, const char *operands, OpClass opClass, Handler handler) {
  return add(pattern, operands, opClass, Choose([handler](const Form &) { return handler; }));
}

Table::Added Table::add(const char *pattern, const char *operands, OpClass opClass, const Choose &choose) {
  Entry &entry = entries_.emplace_back(Entry{pattern, operands, opClass, choose, {}});
  for (const std::string &opcode : opcodesOf(entry.pattern))
    byOpcode_[opcode].push_back(&entry);
  return Added{&entry.settings};
}

const Table::Added &Table::Added::each(std::function<void(Form &)> setting) const {
  settings->push_back(std::move(setting));
  return *this;
}

const Table::Added &Table::Added::flow(Flow flow, int member) const {
  return each([=](Form &form) {
    form.flow = flow;
    form.member = member;
  });
}

const Table::Added &Table::Added::space(Space space) const {
  return each([=](Form &form) { form.space = space; });
}

const Table::Added &Table::Added::tag(int tag) const {
  return each([=](Form &form) { form.tag = tag; });
}

const Table::Added &Table::Added::propagates() const {
  return each([](Form &form) { form.propagates = true; });
}

const Table::Added &Table::Added::ordersBlocks() const {
  return each([](Form &form) { form.ordersBlocks = true; });
}

const std::vector<std::unique_ptr<Form>> &Table::find(const std::string &name) const {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto known = forms_.find(name);
  if (known != forms_.end())
    return known->second;
  std::vector<std::unique_ptr<Form>> &found = forms_[name];
  const auto entries = byOpcode_.find(opcodeOf(name));
  if (entries == byOpcode_.end())
    return found;
  for (const Entry *entry : entries->second) {
    std::vector<int> choice;
    if (!matches(entry->pattern, name, choice, false))
      continue;
    auto form = std::make_unique<Form>();
    form->name = name;
    form->choice = std::move(choice);
    form->opClass = entry->opClass;
    parseOperands(entry->operands.c_str(), *form);
    form->handler = entry->choose(*form);
    for (const auto &setting : entry->settings)
      setting(*form);
    if (form->handler || form->flow != Flow::None)
      found.push_back(std::move(form));
  }
  return found;
}

bool Table::begins(const std::string &prefix) const {
  const auto entries = byOpcode_.find(opcodeOf(prefix));
  if (entries == byOpcode_.end())
    return false;
  for (const Entry *entry : entries->second) {
    std::vector<int> choice;
    if (matches(entry->pattern, prefix, choice, false) || matches(entry->pattern, prefix, choice = {}, true))
      return true;
  }
  return false;
}

const Table &instructions() {
  struct All : Table {
    All() {
      for (void (*add)(Table &) :
           {addInteger, addLogic, addFloat, addApproximate, addHalf, addConvert, addCompare, addMove, addMemory,
            addAtomic, addAsyncCopy, addMatrixLoad, addMatrix, addWarp, addControl})
        add(*this);
    }
  };
  static const All table;
  return table;
}

} // namespace kvq::ptxsim
