// SPDX-License-Identifier: Apache-2.0
#include "runtime/jit/cuda_library.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace kvq {

namespace fs = std::filesystem;

namespace {

std::string variable(const char *name) {
  const char *value = std::getenv(name);
  return value ? value : "";
}

// The program's name as it was called: a link such as .venv/bin/python, which /proc/self/exe has followed.
fs::path calledAs() {
  std::ifstream file("/proc/self/cmdline", std::ios::binary);
  std::string name;
  std::getline(file, name, '\0');
  return name;
}

// Folders of Python packages below the prefix of an environment, the newest Python first.
void addSitePackages(const fs::path &prefix, std::vector<fs::path> &out) {
  std::error_code none;
  std::vector<fs::path> found;
  for (fs::directory_iterator i(prefix / "lib", none), end; !none && i != end; i.increment(none)) {
    const fs::path packages = i->path() / "site-packages";
    if (i->path().filename().string().starts_with("python3") && fs::is_directory(packages, none))
      found.push_back(packages);
  }
  std::sort(found.rbegin(), found.rend());
  out.insert(out.end(), found.begin(), found.end());
}

std::vector<fs::path> pythonFolders(const CudaLibraryName &name) {
  std::vector<fs::path> packages, folders;
  std::error_code none;
  const fs::path program = calledAs();
  if (program.has_parent_path()) {
    const fs::path prefix = fs::absolute(program, none).parent_path().parent_path();
    if (fs::exists(prefix / "pyvenv.cfg", none))
      addSitePackages(prefix, packages);
  }
  for (const char *prefix : {"VIRTUAL_ENV", "CONDA_PREFIX"})
    if (const std::string set = variable(prefix); !set.empty())
      addSitePackages(set, packages);
  // An installed package lies beside the others: site-packages/kvq/libkvq.so.
  if (const std::string own = ownFolder(); !own.empty())
    packages.push_back(fs::path(own).parent_path().parent_path());
  for (const fs::path &package : packages) {
    for (int major : kCudaMajors)
      folders.push_back(package / "nvidia" / ("cu" + std::to_string(major)) / "lib");
    folders.push_back(package / "nvidia" / name.wheelFolder / "lib");
  }
  if (const std::string conda = variable("CONDA_PREFIX"); !conda.empty())
    folders.push_back(fs::path(conda) / "lib");
  return folders;
}

std::vector<fs::path> namedFolders(const CudaLibrarySearch &search) {
  std::vector<fs::path> folders(search.folders.begin(), search.folders.end());
  std::string path = variable("KVQ_CUDA_LIB_PATH");
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find(':', begin), path.size());
    if (end > begin)
      folders.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return folders;
}

std::vector<fs::path> toolkitFolders(std::initializer_list<std::string> toolkits) {
  std::vector<fs::path> folders;
  for (const std::string &toolkit : toolkits)
    if (!toolkit.empty())
      for (const char *below : {"lib64", "lib", "targets/x86_64-linux/lib"})
        folders.push_back(fs::path(toolkit) / below);
  return folders;
}

class Search {
public:
  explicit Search(const CudaLibraryName &name) : name_(name) {}
  // True: it is open.
  bool tryFolders(const std::vector<fs::path> &folders);
  bool tryLoader();
  Result<Library> take();

private:
  std::string soname(int major) const { return std::string(name_.stem) + "." + std::to_string(major); }
  bool tryFile(const std::string &file) {
    found_ = Library::open(file);
    return found_.isOk();
  }

  const CudaLibraryName &name_;
  Result<Library> found_ = Status(Code::Unsupported, "");
  std::string broken_; // files that are there and cannot be opened
};

bool Search::tryFolders(const std::vector<fs::path> &folders) {
  std::error_code none;
  for (const fs::path &folder : folders)
    for (int major : kCudaMajors) {
      const fs::path file = folder / soname(major);
      if (!fs::exists(file, none))
        continue;
      if (tryFile(fs::absolute(file, none).string()))
        return true;
      broken_ += "; " + found_.status().message();
    }
  return false;
}

bool Search::tryLoader() {
  return std::any_of(std::begin(kCudaMajors), std::end(kCudaMajors), [&](int major) { return tryFile(soname(major)); });
}

Result<Library> Search::take() {
  if (found_.isOk())
    return std::move(found_);
  std::string names;
  for (int major : kCudaMajors)
    names += (names.empty() ? "" : " or ") + soname(major);
  return Status(Code::Unsupported, std::string(name_.title) + " is not installed (" + names +
                                       " is in no Python environment, toolkit or system folder" + broken_ +
                                       "): pip install " + name_.package + ", or set " + name_.variable +
                                       " to the file or KVQ_CUDA_LIB_PATH to its folder");
}

} // namespace

Result<Library> openCudaLibrary(const CudaLibraryName &name, const CudaLibrarySearch &search) {
  const bool isGiven = !search.file.empty();
  if (const std::string file = isGiven ? search.file : variable(name.variable); !file.empty()) {
    auto library = Library::open(file);
    if (library.isOk())
      return library;
    return Status(Code::Unsupported, std::string(name.title) + " cannot be loaded from " + file +
                                         (isGiven ? "" : std::string(", which ") + name.variable + " names") + " (" +
                                         library.status().message() + "): name " + name.stem + "." +
                                         std::to_string(kCudaMajors[0]) +
                                         (isGiven ? "" : " or unset " + std::string(name.variable)));
  }
  Search found(name);
  [[maybe_unused]] const bool isOpen =
      found.tryFolders(namedFolders(search)) || found.tryFolders(pythonFolders(name)) ||
      found.tryFolders(toolkitFolders({variable("CUDA_HOME"), variable("CUDA_PATH")})) || found.tryLoader() ||
      found.tryFolders(toolkitFolders({"/usr/local/cuda"}));
  return found.take();
}

} // namespace kvq
