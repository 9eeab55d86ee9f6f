// SPDX-License-Identifier: Apache-2.0
//
// Loading of ELF64 x86-64 relocatable objects. Everything read from the object is checked against its bounds first.
#include "runtime/jit/object_loader.h"

#include <cerrno>
#include <cstring>
#include <elf.h>
#include <limits>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

namespace kvq {

// An object is some kilobytes; the bound keeps a corrupt size from mapping the machine's memory.
static constexpr uint64_t kMaxImage = uint64_t(1) << 28;

static Status corrupt(const std::string &what) {
  return {Code::Corrupt, "the kernel object cannot be loaded because " + what + "; remove it from the store"};
}

// Bytes before the first function: callers that are built with a check of function pointers read there.
static constexpr uint64_t kFront = 64;

class ObjectReader {
public:
  explicit ObjectReader(std::span<const uint8_t> object) : object_(object) {}
  Result<std::shared_ptr<const LoadedObject>> load(const std::string &entry);

private:
  Status readTables();
  Status readSymbolTable(const Elf64_Shdr &table);
  Status layOut();
  void copySections(uint8_t *base) const;
  Status relocate(uint8_t *base, const Elf64_Shdr &table) const;
  Status apply(uint8_t *base, size_t section, const Elf64_Rela &rela) const;
  Result<uint64_t> symbolAddress(uint64_t base, uint64_t index) const;
  Result<uint64_t> entryOffset(const std::string &entry) const;
  Status protect(uint8_t *base) const;

  bool inside(uint64_t offset, uint64_t bytes) const {
    return offset <= object_.size() && bytes <= object_.size() - offset;
  }
  template <typename T> T read(uint64_t offset) const {
    T value;
    std::memcpy(&value, object_.data() + offset, sizeof(T));
    return value;
  }

  static constexpr uint64_t kNowhere = std::numeric_limits<uint64_t>::max();
  // Sections of one protection share pages; the three kinds never do.
  enum Kind { Executable, ReadOnly, Writable, Kinds };

  std::span<const uint8_t> object_;
  std::vector<Elf64_Shdr> sections_;
  std::vector<Elf64_Sym> symbols_;
  std::span<const uint8_t> names_; // of symbols
  std::vector<uint64_t> place_;    // offset of each section in the image, or kNowhere
  uint64_t kindBegin_[Kinds + 1] = {};
};

Status ObjectReader::readTables() {
  if (!inside(0, sizeof(Elf64_Ehdr)))
    return corrupt("it is only " + std::to_string(object_.size()) + " bytes");
  auto header = read<Elf64_Ehdr>(0);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_type != ET_REL || header.e_machine != EM_X86_64)
    return corrupt("it is not an ELF64 x86-64 relocatable object");
  if (header.e_shentsize != sizeof(Elf64_Shdr) || header.e_shnum == 0 ||
      !inside(header.e_shoff, uint64_t(header.e_shnum) * sizeof(Elf64_Shdr)))
    return corrupt("its section table lies outside of it");
  for (uint64_t i = 0; i < header.e_shnum; ++i) {
    auto section = read<Elf64_Shdr>(header.e_shoff + i * sizeof(Elf64_Shdr));
    if (section.sh_type != SHT_NOBITS && !inside(section.sh_offset, section.sh_size))
      return corrupt("section " + std::to_string(i) + " lies outside of it");
    sections_.push_back(section);
  }
  for (const Elf64_Shdr &section : sections_)
    if (section.sh_type == SHT_SYMTAB)
      return readSymbolTable(section);
  return corrupt("it has no symbol table");
}

Status ObjectReader::readSymbolTable(const Elf64_Shdr &table) {
  if (table.sh_entsize != sizeof(Elf64_Sym) || table.sh_size % sizeof(Elf64_Sym) != 0)
    return corrupt("its symbol table has a wrong entry size");
  if (table.sh_link >= sections_.size() || sections_[table.sh_link].sh_type != SHT_STRTAB)
    return corrupt("its symbol table has no names");
  const Elf64_Shdr &names = sections_[table.sh_link];
  names_ = object_.subspan(names.sh_offset, names.sh_size);
  for (uint64_t at = 0; at < table.sh_size; at += sizeof(Elf64_Sym))
    symbols_.push_back(read<Elf64_Sym>(table.sh_offset + at));
  return Status::ok();
}

Status ObjectReader::layOut() {
  place_.assign(sections_.size(), kNowhere);
  const uint64_t page = uint64_t(sysconf(_SC_PAGESIZE));
  uint64_t end = kFront;
  for (int kind = 0; kind < Kinds; ++kind) {
    if (kind != Executable)
      end = (end + page - 1) / page * page;
    kindBegin_[kind] = kind == Executable ? 0 : end;
    for (size_t i = 0; i < sections_.size(); ++i) {
      const Elf64_Shdr &section = sections_[i];
      if (!(section.sh_flags & SHF_ALLOC) || section.sh_size == 0)
        continue;
      if (section.sh_flags & SHF_TLS)
        return corrupt("it has thread-local data");
      int of = section.sh_flags & SHF_EXECINSTR ? Executable : section.sh_flags & SHF_WRITE ? Writable : ReadOnly;
      if (of != kind)
        continue;
      uint64_t align = section.sh_addralign ? section.sh_addralign : 1;
      if ((align & (align - 1)) != 0 || align > page)
        return corrupt("section " + std::to_string(i) + " has alignment " + std::to_string(align));
      end = (end + align - 1) & ~(align - 1);
      if (section.sh_size > kMaxImage || end > kMaxImage - section.sh_size)
        return corrupt("its sections are larger than 256 MiB");
      place_[i] = end;
      end += section.sh_size;
    }
  }
  kindBegin_[Kinds] = (end + page - 1) / page * page;
  return Status::ok();
}

void ObjectReader::copySections(uint8_t *base) const {
  for (size_t i = 0; i < sections_.size(); ++i)
    if (place_[i] != kNowhere && sections_[i].sh_type != SHT_NOBITS)
      std::memcpy(base + place_[i], object_.data() + sections_[i].sh_offset, sections_[i].sh_size);
}

Result<uint64_t> ObjectReader::symbolAddress(uint64_t base, uint64_t index) const {
  if (index >= symbols_.size())
    return corrupt("a relocation names symbol " + std::to_string(index) + " of " + std::to_string(symbols_.size()));
  const Elf64_Sym &symbol = symbols_[index];
  if (symbol.st_shndx == SHN_ABS)
    return symbol.st_value;
  if (symbol.st_shndx == SHN_UNDEF)
    return corrupt("it needs a symbol that it does not define");
  if (symbol.st_shndx >= sections_.size() || place_[symbol.st_shndx] == kNowhere)
    return corrupt("a symbol lies in section " + std::to_string(symbol.st_shndx) + ", which is not loaded");
  return base + place_[symbol.st_shndx] + symbol.st_value;
}

Status ObjectReader::apply(uint8_t *base, size_t section, const Elf64_Rela &rela) const {
  const uint64_t type = ELF64_R_TYPE(rela.r_info);
  if (type == R_X86_64_NONE)
    return Status::ok();
  const bool wide = type == R_X86_64_64 || type == R_X86_64_PC64;
  const uint64_t bytes = wide ? 8 : 4, size = sections_[section].sh_size;
  if (rela.r_offset > size || bytes > size - rela.r_offset)
    return corrupt("a relocation lies outside of its section");
  auto symbol = symbolAddress(reinterpret_cast<uint64_t>(base), ELF64_R_SYM(rela.r_info));
  if (!symbol.isOk())
    return symbol.status();
  uint8_t *where = base + place_[section] + rela.r_offset;
  // Unsigned arithmetic: a corrupt addend may overflow, and the range check below then refuses it.
  const uint64_t absolute = symbol.value() + uint64_t(rela.r_addend);
  const uint64_t relative = absolute - reinterpret_cast<uint64_t>(where);
  uint64_t value = 0;
  bool fits = true;
  switch (type) {
  case R_X86_64_64:
    value = absolute;
    break;
  case R_X86_64_PC64:
    value = relative;
    break;
  case R_X86_64_PC32:
  case R_X86_64_PLT32: // every symbol is local to the image, so a call needs no table
    value = relative;
    fits = int64_t(value) == int32_t(value);
    break;
  case R_X86_64_32:
    value = absolute;
    fits = value == uint32_t(value);
    break;
  case R_X86_64_32S:
    value = absolute;
    fits = int64_t(value) == int32_t(value);
    break;
  default:
    return corrupt("it has a relocation of type " + std::to_string(type));
  }
  if (!fits)
    return corrupt("a relocation of type " + std::to_string(type) + " does not reach its target");
  std::memcpy(where, &value, bytes);
  return Status::ok();
}

Status ObjectReader::relocate(uint8_t *base, const Elf64_Shdr &table) const {
  if (table.sh_info >= sections_.size())
    return corrupt("a relocation table belongs to no section");
  const size_t section = table.sh_info;
  if (place_[section] == kNowhere)
    return Status::ok(); // debug information
  if (table.sh_type == SHT_REL)
    return corrupt("it has relocations without addends");
  if (table.sh_entsize != sizeof(Elf64_Rela) || table.sh_size % sizeof(Elf64_Rela) != 0)
    return corrupt("a relocation table has a wrong entry size");
  if (sections_[section].sh_type == SHT_NOBITS)
    return corrupt("it relocates a section without bytes");
  for (uint64_t at = 0; at < table.sh_size; at += sizeof(Elf64_Rela))
    KVQ_RETURN_IF_ERROR(apply(base, section, read<Elf64_Rela>(table.sh_offset + at)));
  return Status::ok();
}

Result<uint64_t> ObjectReader::entryOffset(const std::string &entry) const {
  for (const Elf64_Sym &symbol : symbols_) {
    if (symbol.st_name >= names_.size())
      return corrupt("a symbol's name lies outside of the names");
    const auto *name = reinterpret_cast<const char *>(names_.data() + symbol.st_name);
    const size_t room = names_.size() - symbol.st_name;
    if (strnlen(name, room) != entry.size() || entry.size() == room || entry != std::string_view(name, entry.size()))
      continue;
    if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx >= sections_.size() ||
        place_[symbol.st_shndx] == kNowhere || !(sections_[symbol.st_shndx].sh_flags & SHF_EXECINSTR) ||
        symbol.st_value >= sections_[symbol.st_shndx].sh_size)
      return corrupt("its entry " + entry + " is no function");
    return place_[symbol.st_shndx] + symbol.st_value;
  }
  return corrupt("it has no function " + entry);
}

Status ObjectReader::protect(uint8_t *base) const {
  static constexpr int kProtection[Kinds] = {PROT_READ | PROT_EXEC, PROT_READ, PROT_READ | PROT_WRITE};
  for (int kind = 0; kind < Kinds; ++kind) {
    uint64_t begin = kindBegin_[kind], bytes = kindBegin_[kind + 1] - begin;
    if (bytes && mprotect(base + begin, bytes, kProtection[kind]) != 0)
      return {Code::Unsupported, std::string("this system does not let memory become executable (") +
                                     std::strerror(errno) + "): use device \"ref\""};
  }
  return Status::ok();
}

Result<std::shared_ptr<const LoadedObject>> ObjectReader::load(const std::string &entry) {
  KVQ_RETURN_IF_ERROR(readTables());
  KVQ_RETURN_IF_ERROR(layOut());
  auto offset = entryOffset(entry);
  if (!offset.isOk())
    return offset.status();
  const uint64_t bytes = kindBegin_[Kinds];
  void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return Status(Code::ResourceExhausted,
                  "no memory for " + std::to_string(bytes) + " bytes of kernel code: " + "free some memory");
  std::shared_ptr<LoadedObject> loaded(new LoadedObject(memory, bytes));
  auto *base = static_cast<uint8_t *>(memory);
  copySections(base);
  for (const Elf64_Shdr &section : sections_)
    if (section.sh_type == SHT_RELA || section.sh_type == SHT_REL)
      KVQ_RETURN_IF_ERROR(relocate(base, section));
  KVQ_RETURN_IF_ERROR(protect(base));
  loaded->fn_ = reinterpret_cast<kvq_kernel_fn>(base + offset.value());
  return std::shared_ptr<const LoadedObject>(std::move(loaded));
}

Result<std::shared_ptr<const LoadedObject>> LoadedObject::load(std::span<const uint8_t> object,
                                                               const std::string &entry) {
  return ObjectReader(object).load(entry);
}

LoadedObject::~LoadedObject() { munmap(memory_, bytes_); }

} // namespace kvq
