// SPDX-License-Identifier: Apache-2.0
//
// A section .nv.info or .nv.info.KERNEL is a list of attributes: a format, a number, and either two bytes of value or
// their count and that many bytes. The first of the two names symbols, the second speaks of its kernel.
#include "runtime/jit/cubin.h"

#include "runtime/format/text.h"

#include <algorithm>
#include <cstring>
#include <elf.h>
#include <limits>

namespace kvq {

namespace {

constexpr uint16_t kMachineCuda = 190; // EM_CUDA
// From this ABI version on, which CUDA 13 writes, the processor stands in another byte of the flags.
constexpr uint8_t kNewAbi = 8;
// Before, the section of a kernel's code had the number of its barriers among its flags.
constexpr int kBarriersShift = 20;
constexpr uint64_t kBarriersMask = 0x7f;
// Shared memory that the system takes of every block from sm_90 on; the kernel's section counts it.
constexpr int64_t kReservedShared = 1024;
constexpr int kReservedFrom = 90;
constexpr uint8_t kSized = 4; // the format of an attribute with a count of bytes

enum Attribute : uint8_t {
  MaxThreads = 0x05,
  RequiredThreads = 0x10,
  FrameSize = 0x11,
  MinStackSize = 0x12,
  Parameter = 0x17,
  ParameterBytes = 0x19,
  Registers = 0x2f,
  Barriers = 0x4c,
};

Status corrupt(const std::string &what) {
  return {Code::Corrupt, "the cubin cannot be read because " + what + "; compile it again"};
}

class CubinReader {
public:
  explicit CubinReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  Result<CubinInfo> read();

private:
  using Bytes = std::span<const uint8_t>;
  template <typename T> static T load(Bytes bytes, size_t at) {
    T value;
    std::memcpy(&value, bytes.data() + at, sizeof(T));
    return value;
  }
  bool inside(uint64_t offset, uint64_t size) const {
    return offset <= bytes_.size() && size <= bytes_.size() - offset;
  }
  Status readSections();
  Status readSymbols();
  Status readKernels();
  Status readAttributes(size_t section, CubinKernel *kernel);
  Status readAttribute(uint8_t attribute, Bytes value, CubinKernel *kernel);
  Status readOfKernel(uint8_t attribute, Bytes value, CubinKernel &kernel) const;
  Status readOfSymbol(uint8_t attribute, Bytes value);
  Result<std::string> nameAt(Bytes names, uint64_t offset) const;
  Bytes content(size_t section) const {
    const Elf64_Shdr &header = sections_[section];
    return header.sh_type == SHT_NOBITS ? Bytes() : bytes_.subspan(header.sh_offset, header.sh_size);
  }
  CubinKernel *find(std::string_view name) {
    return const_cast<CubinKernel *>(static_cast<const CubinInfo &>(info_).find(name));
  }

  Bytes bytes_;
  std::vector<Elf64_Shdr> sections_;
  std::vector<std::string> names_;   // of sections
  std::vector<std::string> symbols_; // their names
  uint8_t abi_ = 0;
  CubinInfo info_;
};

Result<std::string> CubinReader::nameAt(Bytes names, uint64_t offset) const {
  if (offset >= names.size())
    return corrupt("a name lies outside of the names");
  const auto *name = reinterpret_cast<const char *>(names.data() + offset);
  const size_t room = names.size() - offset, size = strnlen(name, room);
  if (size == room)
    return corrupt("a name has no end");
  return std::string(name, size);
}

Status CubinReader::readSections() {
  if (bytes_.size() < sizeof(Elf64_Ehdr) || std::memcmp(bytes_.data(), ELFMAG, SELFMAG) != 0 ||
      bytes_[EI_CLASS] != ELFCLASS64 || bytes_[EI_DATA] != ELFDATA2LSB)
    return corrupt("it is no ELF file of 64 bits");
  const auto header = load<Elf64_Ehdr>(bytes_, 0);
  if (header.e_machine != kMachineCuda)
    return corrupt("it is for machine " + std::to_string(header.e_machine) + ", not for a GPU of NVIDIA");
  abi_ = header.e_ident[EI_ABIVERSION];
  info_.processor = abi_ >= kNewAbi ? header.e_flags >> 8 & 0xff : header.e_flags & 0xff;
  if (header.e_shentsize != sizeof(Elf64_Shdr) ||
      !inside(header.e_shoff, uint64_t(header.e_shnum) * sizeof(Elf64_Shdr)))
    return corrupt("its table of sections lies outside of it");
  for (size_t i = 0; i < header.e_shnum; ++i) {
    sections_.push_back(load<Elf64_Shdr>(bytes_, header.e_shoff + i * sizeof(Elf64_Shdr)));
    if (sections_[i].sh_type != SHT_NOBITS && !inside(sections_[i].sh_offset, sections_[i].sh_size))
      return corrupt("section " + std::to_string(i) + " lies outside of it");
  }
  if (header.e_shstrndx >= sections_.size())
    return corrupt("its sections have no names");
  for (const Elf64_Shdr &section : sections_) {
    auto name = nameAt(content(header.e_shstrndx), section.sh_name);
    if (!name.isOk())
      return name.status();
    names_.push_back(name.value());
  }
  return Status::ok();
}

Status CubinReader::readSymbols() {
  for (size_t i = 0; i < sections_.size(); ++i) {
    if (sections_[i].sh_type != SHT_SYMTAB)
      continue;
    const Bytes table = content(i);
    if (table.size() % sizeof(Elf64_Sym) != 0 || sections_[i].sh_link >= sections_.size())
      return corrupt("its table of symbols has a wrong size or no names");
    for (size_t at = 0; at < table.size(); at += sizeof(Elf64_Sym)) {
      auto name = nameAt(content(sections_[i].sh_link), load<Elf64_Sym>(table, at).st_name);
      if (!name.isOk())
        return name.status();
      symbols_.push_back(name.value());
    }
  }
  return Status::ok();
}

Status CubinReader::readKernels() {
  const auto section = [&](const std::string &name) -> const Elf64_Shdr * {
    const auto found = std::find(names_.begin(), names_.end(), name);
    return found == names_.end() ? nullptr : &sections_[static_cast<size_t>(found - names_.begin())];
  };
  const auto sizeOf = [&](const std::string &name) -> int64_t {
    const Elf64_Shdr *found = section(name);
    return found ? static_cast<int64_t>(found->sh_size) : -1;
  };
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max();
  for (size_t i = 0; i < names_.size(); ++i) {
    constexpr std::string_view kInfo = ".nv.info.";
    if (!names_[i].starts_with(kInfo))
      continue;
    CubinKernel kernel;
    kernel.name = names_[i].substr(kInfo.size());
    kernel.codeBytes = sizeOf(".text." + kernel.name);
    if (kernel.codeBytes <= 0 || find(kernel.name))
      return corrupt("kernel " + text::quote(kernel.name) + " has no code, or is there twice");
    if (abi_ < kNewAbi)
      kernel.barriers = static_cast<int>(section(".text." + kernel.name)->sh_flags >> kBarriersShift & kBarriersMask);
    const int64_t shared = sizeOf(".nv.shared." + kernel.name);
    const int64_t reserved = info_.processor >= kReservedFrom ? kReservedShared : 0;
    kernel.sharedBytes = std::max<int64_t>(shared - reserved, 0);
    kernel.localBytes = std::max<int64_t>(sizeOf(".nv.local." + kernel.name), 0);
    if (kernel.sharedBytes > kMost || kernel.localBytes > kMost || shared < -1)
      return corrupt("kernel " + text::quote(kernel.name) + " has memory of a size that no GPU has");
    KVQ_RETURN_IF_ERROR(readAttributes(i, &kernel));
    info_.kernels.push_back(std::move(kernel));
  }
  for (size_t i = 0; i < names_.size(); ++i)
    if (names_[i] == ".nv.info")
      KVQ_RETURN_IF_ERROR(readAttributes(i, nullptr));
  return Status::ok();
}

Status CubinReader::readAttributes(size_t section, CubinKernel *kernel) {
  const Bytes list = content(section);
  for (size_t at = 0; at < list.size();) {
    if (list.size() - at < 4)
      return corrupt("its attributes end in the middle of one");
    const uint8_t format = list[at], attribute = list[at + 1];
    const auto size = load<uint16_t>(list, at + 2);
    Bytes value = list.subspan(at + 2, 2);
    at += 4;
    if (format == kSized) {
      if (list.size() - at < size)
        return corrupt("an attribute is longer than its section");
      value = list.subspan(at, size);
      at += size;
    }
    KVQ_RETURN_IF_ERROR(readAttribute(attribute, value, kernel));
  }
  return Status::ok();
}

Status CubinReader::readAttribute(uint8_t attribute, Bytes value, CubinKernel *kernel) {
  return kernel ? readOfKernel(attribute, value, *kernel) : readOfSymbol(attribute, value);
}

Status CubinReader::readOfKernel(uint8_t attribute, Bytes value, CubinKernel &kernel) const {
  const size_t wanted = attribute == MaxThreads || attribute == RequiredThreads || attribute == Parameter ? 12 : 2;
  if (value.size() < wanted)
    return wanted == 2 ? Status::ok() : corrupt("attribute " + std::to_string(attribute) + " is too short");
  switch (attribute) {
  case MaxThreads:
    std::memcpy(kernel.maxThreads, value.data(), sizeof(kernel.maxThreads));
    break;
  case RequiredThreads:
    std::memcpy(kernel.requiredThreads, value.data(), sizeof(kernel.requiredThreads));
    break;
  case Parameter: {
    // index:u32 ordinal:u16 offset:u16 flags:u32, the size above bit 18. They come last first.
    const size_t ordinal = load<uint16_t>(value, 4);
    if (ordinal >= 4096)
      return corrupt("it has a parameter " + std::to_string(ordinal));
    if (kernel.parameters.size() <= ordinal)
      kernel.parameters.resize(ordinal + 1);
    kernel.parameters[ordinal] = {load<uint16_t>(value, 6), load<uint32_t>(value, 8) >> 18};
    break;
  }
  case ParameterBytes:
    kernel.parameterBytes = load<uint16_t>(value, 0);
    break;
  case Barriers:
    kernel.barriers = value[0];
    break;
  }
  return Status::ok();
}

Status CubinReader::readOfSymbol(uint8_t attribute, Bytes value) {
  if (attribute != Registers && attribute != FrameSize && attribute != MinStackSize)
    return Status::ok();
  if (value.size() < 8)
    return corrupt("attribute " + std::to_string(attribute) + " is too short");
  const auto symbol = load<uint32_t>(value, 0), number = load<uint32_t>(value, 4);
  if (symbol >= symbols_.size())
    return corrupt("an attribute names symbol " + std::to_string(symbol) + " of " + std::to_string(symbols_.size()));
  CubinKernel *kernel = find(symbols_[symbol]);
  if (!kernel)
    return Status::ok(); // a function that a kernel calls
  if (attribute == Registers)
    kernel->registers = static_cast<int>(std::min<uint32_t>(number, 1 << 16));
  else
    (attribute == FrameSize ? kernel->frameBytes : kernel->stackBytes) = number;
  return Status::ok();
}

Result<CubinInfo> CubinReader::read() {
  KVQ_RETURN_IF_ERROR(readSections());
  KVQ_RETURN_IF_ERROR(readSymbols());
  KVQ_RETURN_IF_ERROR(readKernels());
  return std::move(info_);
}

// The number before `unit` in a line such as "0 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads".
std::optional<int64_t> numberBefore(std::string_view line, std::string_view unit) {
  const size_t end = line.find(unit);
  if (end == std::string_view::npos)
    return std::nullopt;
  const size_t before = line.substr(0, end).find_last_not_of("0123456789");
  const size_t begin = before == std::string_view::npos ? 0 : before + 1;
  const auto number = text::parseDecimal(line.substr(begin, end - begin));
  return number ? std::optional<int64_t>(*number) : std::nullopt;
}

} // namespace

const CubinKernel *CubinInfo::find(std::string_view name) const {
  for (const CubinKernel &kernel : kernels)
    if (kernel.name == name)
      return &kernel;
  return nullptr;
}

Result<CubinInfo> readCubin(std::span<const uint8_t> cubin) { return CubinReader(cubin).read(); }

std::optional<Spills> readSpills(std::string_view log, std::string_view kernel) {
  bool isOfKernel = false;
  for (std::string_view line : text::split(log, '\n')) {
    constexpr std::string_view kProperties = "Function properties for ";
    if (const size_t at = line.find(kProperties); at != std::string_view::npos)
      isOfKernel = line.substr(at + kProperties.size()) == kernel;
    const auto stores = numberBefore(line, " bytes spill stores"), loads = numberBefore(line, " bytes spill loads");
    if (isOfKernel && stores && loads)
      return Spills{*stores, *loads};
  }
  return std::nullopt;
}

} // namespace kvq
