// SPDX-License-Identifier: Apache-2.0
//
// Files of the kernel store's folder: read whole, and only where nobody else may have written them; written under a
// name of their own and renamed, so that a reader never sees half of one.
#pragma once

#include "runtime/format/status.h"

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace kvq {

// The whole file. FailedPrecondition: there is none. Corrupt: it cannot be read, is no plain file, has more than `most`
// bytes or others may write to it.
Result<std::string> readStoreFile(const std::string &path, uint64_t most);
// The parts one after the other as the file `path` of the folder, in the place of what is there. Permission where the
// folder cannot be written.
Status writeStoreFile(const std::string &directory, const std::string &path,
                      std::initializer_list<std::string_view> parts);
// Permission where no file can be made in the folder.
Status checkStoreWritable(const std::string &directory);
// An error of the folder, with what to do about it.
Status storePermission(const std::string &what);

} // namespace kvq
