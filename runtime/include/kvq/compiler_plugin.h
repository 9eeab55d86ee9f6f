/* SPDX-License-Identifier: Apache-2.0
 *
 * The contract between the runtime and the compiler, which the runtime loads as an optional shared library
 * (libkvq-compiler.so). Depends on nothing. The compiler side implements it in codegen/plugin.cpp; the runtime side
 * calls it in runtime/jit/compiler.cpp only.
 */
#ifndef KVQ_COMPILER_PLUGIN_H
#define KVQ_COMPILER_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

#define KVQ_COMPILER_PLUGIN_VERSION 3
/* extern "C" __device__ float kvq_score_mod(float score, int batch, int head, int q, int k) */
#define KVQ_SCORE_HOOK "kvq_score_mod"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct kvq_compile_input {
  const char *request;    /* canonical text of a KernelRequest (runtime/format/problem.h), or NULL */
  const char *source;     /* an IR module with one kernel, if request is NULL */
  const char *level;      /* CPU level, see kvq_compiler_host_levels, or another target: "nvptx:sm_80" */
  const char *score;      /* of a request for attend: an IR module with one func.func (f32, index, index, index, index,
                             captures...) -> f32 of score, batch, head, query and key, its score region; or NULL.
                             kvq_tile.score_hook in it is a call of KVQ_SCORE_HOOK, which PTX then has undefined */
  const char *schedule;   /* of a request: one of the schedules of kvq_compiler_schedules; NULL: the default one (since
                             version 3) */
  const char *bundle_dir; /* where a failed compile leaves what repeats it; NULL: the system's temporary folder */
} kvq_compile_input;

/* Owned by the compiler until kvq_compiler_free. On failure object is NULL and message says why. */
typedef struct kvq_compile_output {
  const void *object; /* an ELF relocatable object for the level, without undefined symbols; for nvptx PTX text */
  size_t object_bytes;
  const char *entry;     /* name of the function in it (kvq_kernel_fn) */
  const char *signature; /* its arguments: "ptr<f32> i64 f32" */
  const char *message;   /* "" or the error, ending in the command that repeats it */
  double compile_ms;
} kvq_compile_output;

typedef int32_t (*kvq_compiler_plugin_version_fn)(void);
typedef const char *(*kvq_compiler_hash_fn)(void);         /* identifies the code that compiles: part of every key */
typedef const char *(*kvq_compiler_llvm_version_fn)(void); /* "22.1.0", for reports; the runtime does not ask for it */
typedef const char *(*kvq_compiler_host_levels_fn)(
    void); /* CPU levels that this host can run, space-separated, best last */
typedef const char *(*kvq_compiler_targets_fn)(
    void); /* all that it makes code for, space-separated: CPU levels, then others (since version 2) */
/* The schedules that input->request can have on input->level, which together with input->schedule are all that is
 * looked at: object is a text with one a line, " (default)" behind one of them (runtime/format/schedule.h). Where
 * input->schedule is given and is none of them, object is NULL and message a sentence. Compiles nothing; thread-safe,
 * never NULL (since version 3). */
typedef kvq_compile_output *(*kvq_compiler_schedules_fn)(const kvq_compile_input *input);
typedef kvq_compile_output *(*kvq_compiler_compile_fn)(const kvq_compile_input *input); /* thread-safe, never NULL */
typedef void (*kvq_compiler_free_fn)(kvq_compile_output *output);

/* Exported names: kvq_compiler_plugin_version, kvq_compiler_llvm_version, kvq_compiler_hash, kvq_compiler_host_levels,
 * kvq_compiler_targets, kvq_compiler_schedules, kvq_compiler_compile, kvq_compiler_free. */

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* KVQ_COMPILER_PLUGIN_H */
