# SPDX-License-Identifier: Apache-2.0
"""KVTuner's package name; `import kvq.compat.shim` makes it importable as `flexible_quant`."""
