// SPDX-License-Identifier: Apache-2.0
//
// What times depend on of a machine, as canonical JSON: keys in order, no spaces, ASCII. The same machine has the same
// text in every process, whichever processors that may use.
#pragma once

#include <string>
#include <string_view>

namespace kvq {

// {"caches":{"L1":32768,"L2":1048576,"L3":33554432},"cores":8,"kind":"cpu","name":"...","target":"x86-64-v4"}: bytes of
// the caches of the first processor, L1 that for data; no caches where the system says nothing of them.
std::string hostMachine(std::string_view level);
// {"kind":"accelerator","name":"...","target":"nvptx:sm_90"}.
std::string acceleratorMachine(std::string_view target, std::string_view name);

} // namespace kvq
