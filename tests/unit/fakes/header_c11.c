/* SPDX-License-Identifier: Apache-2.0
 *
 * The public headers are C11 and stand alone. Built with warnings as errors.
 */
#include <kvq/kvq.h>

#include <kvq/compiler_plugin.h>
#include <kvq/kernel_abi.h>

_Static_assert(sizeof(kvq_append_item) == 24 && sizeof(kvq_quantize_item) == 24 && sizeof(kvq_attend_item) == 64 &&
                   sizeof(kvq_dequantize_item) == 24,
               "the items' sizes are part of the kernel ABI");

const char *kvq_version_from_c(void);
const char *kvq_version_from_c(void) { return kvq_version(); }
