# SPDX-License-Identifier: Apache-2.0
"""The NumPy oracle: what a kvq cache must do, written from docs/format-spec.md alone.

It shares no code with the runtime or the compiler, so that a mistake has to be made twice to stay unseen. It is slow on
purpose and holds no kernels. `torch_attention` needs torch and is imported only where it is used.
"""
