/* SPDX-License-Identifier: Apache-2.0
 *
 * The schedules of the fake compilers: two for every request.
 */
#pragma once

#include <kvq/compiler_plugin.h>

#include <stdlib.h>
#include <string.h>

static const char kFakeSchedules[] = "tile_tokens=32,rows=8,vectors=8,prefetch=1\n"
                                     "tile_tokens=64,rows=8,vectors=8,prefetch=1 (default)\n";
static const char kFakeRefusal[] = "that schedule is none of the fake ones";

static int fake_has_schedule(const kvq_compile_input *input) {
  return !input->schedule || strstr(kFakeSchedules, input->schedule) != NULL;
}

__attribute__((visibility("default"))) kvq_compile_output *kvq_compiler_schedules(const kvq_compile_input *input) {
  kvq_compile_output *output = calloc(1, sizeof(*output));
  output->message = fake_has_schedule(input) ? "" : kFakeRefusal;
  output->object = fake_has_schedule(input) ? kFakeSchedules : NULL;
  output->object_bytes = strlen(kFakeSchedules);
  return output;
}
