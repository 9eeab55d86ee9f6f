# SPDX-License-Identifier: Apache-2.0
"""The demo: `python -m kvq.demo` measures SmolLM2-135M-Instruct with quantized caches on this machine."""
