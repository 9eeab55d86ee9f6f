# SPDX-License-Identifier: Apache-2.0
"""How far a candidate may be from the reference: the budgets of accuracy classes (format-spec attention_c4). Codes,
packed bytes and copied rows have none: they are the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kvq.tune.check_data import DOMINANT
from kvq.tune.launch_memory import decode
from kvq.tune.problem import CheckCase, Deviation
from kvq.tune.request_fields import Fields

if TYPE_CHECKING:
    import numpy as np

F32_ROUNDOFF = 2.0**-24
ROUNDOFF = {"f32": 0.0, "bf16": 2.0**-8, "f16": 2.0**-11}  # of an output, relative
LARGE = 10.0  # factor of outlier channels beyond which scores are of tens
# By class: ordinary values, a dominant token, outlier channels, scores of tens; each of 8 bits, 4 and 3 bits, 2 bits.
ARITHMETIC = {
    "full": ((1e-4,) * 3, (1e-4,) * 3, (1e-4,) * 3, (1e-4,) * 3),
    "exact": ((1e-3,) * 3, (1e-3,) * 3, (1e-3,) * 3, (3e-3,) * 3),
    "normal": ((1.5e-3, 1.5e-2, 6e-2), (1.5e-3, 1.5e-2, 6e-2), (1.5e-3, 4e-2, 6e-2), (3e-3, 2e-1, 2e-1)),
    "fast": ((3e-2, 3e-2, 6e-2), (6e-2,) * 3, (6e-2,) * 3, (2e-1,) * 3),
}
REFERENCE = 1e-3  # what the reference itself may be off: its arithmetic is f32
TERMS = 64  # units of rounding that a sum of a few parts may lose


def arithmetic(fields: Fields, case: CheckCase) -> float:
    kinds = [0, 1 if case.dominant else 0, 0 if not case.outliers else 3 if case.factor > LARGE else 2]
    width = {8: 0, 4: 1, 3: 1, 2: 2}[fields.bits]
    return max(ARITHMETIC[fields.accuracy][kind][width] for kind in kinds)


def over_rows(budget: float, rows: int) -> float:
    """Of the rms over so few rows: one row uses up to four times what many use on average."""
    return budget if budget <= REFERENCE else budget * max(1.0, 4 / rows**0.5)


def partials(
    fields: Fields, case: CheckCase, got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
) -> Deviation:
    """Of attend: o by its rms, every lse by itself; what of the two is nearer to its limit. Places that no program
    writes must hold what they held."""
    import numpy as np

    budget = arithmetic(fields, case)
    written = ~np.isnan(wanted["lse"])
    if (np.isnan(got["lse"]) == written).any() or not np.isnan(got["o"][~written]).all():
        return Deviation(float("inf"), 0.0)
    seen = written & np.isfinite(wanted["lse"])
    lse = wanted["lse"][seen].astype(np.float64)
    if not np.array_equal(got["lse"][written & ~seen], wanted["lse"][written & ~seen]):
        return Deviation(float("inf"), 0.0)
    allowed = over_rows(budget, len(lse)) + REFERENCE
    worst = Deviation(relative_rms(got["o"][seen], wanted["o"][seen]), allowed)
    off = float(np.max(np.abs(got["lse"][seen] - lse), initial=0.0))
    bound = (1 if budget <= REFERENCE else 4) * budget * score_size(fields, case) + REFERENCE
    of_lse = Deviation(off, bound + 4 * F32_ROUNDOFF * float(np.max(np.abs(lse), initial=0.0)))
    return max((worst, of_lse), key=lambda found: _share(found))


def merged(fields: Fields, got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> Deviation:
    """Two sums of the same few parts, each rounded once."""
    import numpy as np

    o, reference = (decode(each["o"], fields.dtype) for each in (got, wanted))
    found = Deviation(relative_rms(o, reference), 2 * TERMS * F32_ROUNDOFF + ROUNDOFF[fields.dtype])
    size = max(1.0, float(np.max(np.abs(wanted["lse"]))))
    off = float(np.max(np.abs(got["lse"].astype(np.float64) - wanted["lse"])))
    return max((found, Deviation(off, 2 * TERMS * F32_ROUNDOFF * size)), key=_share)


def same_bits(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> Deviation:
    """Bytes that differ."""
    import numpy as np

    different = (np.count_nonzero(got[name].view(np.uint8) != wanted[name].view(np.uint8)) for name in wanted)
    return Deviation(float(sum(different)), 0.0)


def relative_rms(got: np.ndarray, wanted: np.ndarray) -> float:
    import numpy as np

    wanted = wanted.astype(np.float64)
    return float(np.sqrt(np.mean((got - wanted) ** 2) / np.mean(wanted**2)))


def score_size(fields: Fields, case: CheckCase) -> float:
    """Rms of a row's scores, of which an error is a share: outlier channels make them. Queries of a dominant token take
    outliers out again; they are that key, times what makes its own score DOMINANT, so that others have 1/sqrt(dk) of
    it."""
    if case.dominant:
        return max(1.0, DOMINANT / fields.dk**0.5)
    return max(1.0, case.factor * (2 * case.outliers / fields.dk) ** 0.5)


def _share(found: Deviation) -> float:
    """Of what is allowed; a NaN is the worst."""
    share = found.error / found.allowed if found.allowed else found.error
    return float("inf") if share != share else share
