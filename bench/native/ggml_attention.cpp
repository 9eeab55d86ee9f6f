// SPDX-License-Identifier: Apache-2.0
//
// One decode step of ggml's flash attention on a CPU, as functions that Python calls: a peer in the same process. Each
// object owns copies of one K and V of a layer, so that a step can read beyond the caches.
#include "ggml-alloc.h"
#include "ggml-backend.h"
#include "ggml-cpu.h"
#include "ggml.h"

#include <cstring>
#include <vector>

namespace {

struct Shape {
  int64_t qHeads, kvHeads, headSize, tokens;
};

struct Copy {
  ggml_tensor *q, *k, *v, *out;
  ggml_cgraph *graph;
};

// One row of K or V after the other, in the type of the tensor.
void fill(ggml_tensor *tensor, const float *values) {
  const int64_t rows = ggml_nrows(tensor), width = tensor->ne[0];
  std::vector<uint8_t> data(ggml_nbytes(tensor));
  ggml_quantize_chunk(tensor->type, values, data.data(), 0, rows, width, nullptr);
  ggml_backend_tensor_set(tensor, data.data(), 0, data.size());
}

} // namespace

struct kvq_ggml {
  ggml_context *context = nullptr;
  ggml_backend_t backend = nullptr;
  ggml_backend_buffer_t buffer = nullptr;
  ggml_threadpool *pool = nullptr;
  std::vector<Copy> copies;

  ~kvq_ggml() {
    ggml_backend_buffer_free(buffer);
    if (backend)
      ggml_backend_free(backend);
    if (pool)
      ggml_threadpool_free(pool);
    ggml_free(context);
  }

  bool create(ggml_type type, const Shape &shape, int count, int threads) {
    const size_t each = 16 * ggml_tensor_overhead() + ggml_graph_overhead_custom(8, false);
    context = ggml_init({count * each, nullptr, true});
    backend = ggml_backend_cpu_init();
    if (!context || !backend)
      return false;
    ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    pool = ggml_threadpool_new(&params);
    ggml_backend_cpu_set_n_threads(backend, threads);
    ggml_backend_cpu_set_threadpool(backend, pool);
    for (int i = 0; i < count; ++i)
      copies.push_back(makeCopy(type, shape));
    buffer = ggml_backend_alloc_ctx_tensors(context, backend);
    return buffer != nullptr;
  }

  // K and V are contiguous within a head: ggml runs faster so than with the heads of a token side by side.
  Copy makeCopy(ggml_type type, const Shape &shape) {
    Copy copy;
    copy.q = ggml_new_tensor_3d(context, GGML_TYPE_F32, shape.headSize, 1, shape.qHeads);
    copy.k = ggml_new_tensor_3d(context, type, shape.headSize, shape.tokens, shape.kvHeads);
    copy.v = ggml_new_tensor_3d(context, type, shape.headSize, shape.tokens, shape.kvHeads);
    const float scale = 1.0f / __builtin_sqrtf(static_cast<float>(shape.headSize));
    copy.out = ggml_flash_attn_ext(context, copy.q, copy.k, copy.v, nullptr, scale, 0.0f, 0.0f);
    copy.graph = ggml_new_graph_custom(context, 8, false);
    ggml_build_forward_expand(copy.graph, copy.out);
    return copy;
  }
};

extern "C" {

// type: "f16", "q8_0", "q4_0"; q [q_heads, d], k and v [kv_heads, tokens, d]. NULL: ggml has no such type or no memory.
kvq_ggml *kvq_ggml_create(const char *type, int q_heads, int kv_heads, int d, int64_t tokens, int copies, int threads,
                          const float *q, const float *k, const float *v) {
  int found = 0;
  while (found < GGML_TYPE_COUNT && (!ggml_type_name(static_cast<ggml_type>(found)) ||
                                     std::strcmp(ggml_type_name(static_cast<ggml_type>(found)), type)))
    ++found;
  if (found == GGML_TYPE_COUNT)
    return nullptr;
  kvq_ggml *made = new kvq_ggml;
  if (!made->create(static_cast<ggml_type>(found), {q_heads, kv_heads, d, tokens}, copies, threads)) {
    delete made;
    return nullptr;
  }
  for (const Copy &copy : made->copies) {
    ggml_backend_tensor_set(copy.q, q, 0, ggml_nbytes(copy.q));
    fill(copy.k, k);
    fill(copy.v, v);
  }
  return made;
}

void kvq_ggml_destroy(kvq_ggml *made) { delete made; }

// Bytes of K and V that one step reads.
size_t kvq_ggml_bytes(const kvq_ggml *made) {
  return ggml_nbytes(made->copies.front().k) + ggml_nbytes(made->copies.front().v);
}

// One step over every copy; 0 on success.
int kvq_ggml_run(kvq_ggml *made) {
  for (const Copy &copy : made->copies)
    if (ggml_backend_graph_compute(made->backend, copy.graph) != GGML_STATUS_SUCCESS)
      return 1;
  return 0;
}

// The result of the first copy, [q_heads, d].
void kvq_ggml_result(const kvq_ggml *made, float *out) {
  const ggml_tensor *tensor = made->copies.front().out;
  ggml_backend_tensor_get(tensor, out, 0, ggml_nbytes(tensor));
}
}
