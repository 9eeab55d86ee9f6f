# SPDX-License-Identifier: Apache-2.0
"""The form of a report's JSON: what programs that read it may count on (docs/nvidia.md)."""

NUMBER = (int, float)


def optional(form):
    return ("optional", form)


def by_name(form):
    return ("by name", form)


RESOURCES = {
    "registers": int, "spill_bytes": int, "stack_bytes": int, "static_shared_bytes": int, "dynamic_shared_bytes": int,
    "instructions": int,
}  # fmt: skip
OCCUPANCY = {
    "threads": int, "blocks": int, "warps": int, "warps_possible": int, "limiter": str, "blocks_by": by_name(int),
}  # fmt: skip
WORKLOAD = {
    "about": str, "grid": [int], "block": [int], "elements": int, "elements_per_iteration": optional(int),
    "bytes_in_flight": optional(int),
}  # fmt: skip
TRAFFIC = {
    "bytes_per_element": {"read_unique": NUMBER, "written_unique": NUMBER, "requested": NUMBER},
    "sectors_per_request": optional(NUMBER),
    "sector_share_used": optional(NUMBER),
    "shared_requests": int,
    "bank_conflicts": int,
}
COUNTERS = {
    "status": str,
    "findings": int,
    **TRAFFIC,
    "steady_state": optional({"elements": int, **TRAFFIC}),
    "ptx_instructions_per_element": NUMBER,
    "ptx_instructions_per_element_by_class": by_name(NUMBER),
    "coverage": {"lines": int, "executed": int},
}
LOOP = {
    "chosen_by": str, "offset": int, "line": optional(int), "depth": int, "blocks": int, "iterations": optional(NUMBER),
    "ptx_iterations": int, "issue_slots": NUMBER, "instructions_not_always_executed": int, "classes": by_name(NUMBER),
    "unknown_opcodes": [str], "elements_per_iteration": optional(NUMBER), "elements_per_iteration_from": optional(str),
    "share_of_elements": optional(NUMBER), "thread_instructions_per_element": optional(NUMBER),
    "thread_instructions_per_element_of_nest": optional(NUMBER),
}  # fmt: skip
GPU = {
    "gpu": str, "architecture": str, "warps": int, "predicted_us": optional(NUMBER),
    "predicted_bandwidth_share": NUMBER, "predicted_limiter": str, "predicted_us_by": by_name(NUMBER),
    "predicted_us_of_one_warp": optional(NUMBER),
    "predicted_bytes_in_flight": NUMBER, "predicted_bytes_in_flight_from": str,
    "predicted_bytes_in_flight_needed": NUMBER, "sources": by_name(str),
}  # fmt: skip
REPORT = {
    "schema": int,
    "kernel": str,
    "source": str,
    "target": str,
    "compiler": str,
    "resources": RESOURCES,
    "occupancy": optional(OCCUPANCY),
    "workload": optional(WORKLOAD),
    "counters": optional(COUNTERS),
    "loop": optional(LOOP),
    "predicted": optional({"note": str, "elements": int, "gpus": [GPU]}),
}


def wrong(value, form=REPORT, place="report"):
    """What is not as the form says, or ""."""
    if isinstance(form, tuple) and form[0] == "optional":
        return "" if value is None else wrong(value, form[1], place)
    if isinstance(form, tuple) and form[0] == "by name":
        if not isinstance(value, dict):
            return f"{place} is no object"
        return next(filter(None, (wrong(v, form[1], f"{place}.{k}") for k, v in value.items())), "")
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{place} is no list"
        return next(filter(None, (wrong(v, form[0], f"{place}[{i}]") for i, v in enumerate(value))), "")
    if isinstance(form, dict):
        if not isinstance(value, dict) or list(value) != list(form):
            return f"{place} has {list(value) if isinstance(value, dict) else value} instead of {list(form)}"
        return next(filter(None, (wrong(value[name], part, f"{place}.{name}") for name, part in form.items())), "")
    good = isinstance(value, form) and not isinstance(value, bool)
    return "" if good else f"{place} is {value!r}"
