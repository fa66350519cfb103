"""The score that training may see: a weighted sum of judges, each standardised on training rows.

score = sum_j w_j (x_j - mean_j) / std_j. Held-out judges have no entry here, so they cannot leak into it.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from flowsmith.errors import FlowsmithError
from flowsmith.files import atomic_write


class ScoreError(FlowsmithError):
    """A score cannot be fitted, read or computed."""


@dataclass(frozen=True)
class JudgeScale:
    """How one judge enters the score.

    Attributes:
        mean: Mean of the judge over training rows, in the judge's own unit.
        std: Its standard deviation there, > 0.
        weight: Weight of the standardised value.
    """

    mean: float
    std: float
    weight: float = 1.0


def check_judges(setting: str, needed: Iterable[str], listed: Iterable[str]) -> None:
    """Check, before anything is rendered, that a score will find its judges.

    Raises:
        ScoreError: One that ``setting`` names is not listed.
    """
    listed = list(listed)
    if missing := sorted(set(needed) - set(listed)):
        raise ScoreError(
            f"{setting} weighs {', '.join(missing)}, which no judge here gives; the judges are: "
            f"{', '.join(listed) or 'none'}. List these too under ImageMetrics, or weigh those alone"
        )


class Score:
    """Standardised weighted sum of judges.

    Args:
        judges: Name of a judge -> its mean, standard deviation and weight.

    Raises:
        ScoreError: There is no judge, or one has no positive finite standard deviation.
    """

    def __init__(self, judges: dict[str, JudgeScale]) -> None:
        if not judges:
            raise ScoreError("judges={}: a score of nothing ranks nothing; name at least one judge")
        for name, scale in judges.items():
            if not (scale.std > 0 and all(map(math.isfinite, (scale.mean, scale.std, scale.weight)))):
                raise ScoreError(
                    f"judges.{name}={scale}: standardising divides by std; give finite numbers and std > 0, "
                    "or leave out a judge that says the same of every image"
                )
        self.judges = dict(judges)

    @classmethod
    def fit(cls, values: Mapping[str, ArrayLike], weights: Mapping[str, float]) -> Self:
        """Take mean and standard deviation (n - 1) of each weighted judge from training rows.

        Args:
            values: Judge -> values [rows], at least 2; judges without a weight are ignored.
            weights: Judge -> weight.
        """
        scales = {}
        for name, weight in weights.items():
            column = np.asarray(values[name], dtype=np.float64) if name in values else np.empty(0)
            if column.size < 2 or not np.isfinite(column).all():
                raise ScoreError(
                    f"weights.{name}={weight}: the rows hold {column.size} values of it, and at least 2 finite ones "
                    f"are needed; the judges there are: {', '.join(sorted(values)) or 'none'}"
                )
            # Equal values leave a rounding error of a std instead of 0.
            std = float(column.std(ddof=1)) if np.ptp(column) > 0 else 0.0
            scales[name] = JudgeScale(float(column.mean()), std, float(weight))
        return cls(scales)

    def __call__(self, judges: Mapping[str, float]) -> float:
        """Return the score of one sample; judges that it does not use are ignored."""
        return float(self.column({name: np.asarray([value]) for name, value in judges.items()})[0])

    def column(self, values: Mapping[str, ArrayLike]) -> NDArray[np.float64]:
        """Return the scores [rows] of many samples.

        Raises:
            ScoreError: A judge of the score has no values.
        """
        missing = sorted(self.judges.keys() - values.keys())
        if missing:
            raise ScoreError(
                f"judges given: {', '.join(sorted(values)) or 'none'}; the score also needs {', '.join(missing)}: "
                "run these judges too, or fit a score without them"
            )
        parts = [
            scale.weight * (np.asarray(values[name], dtype=np.float64) - scale.mean) / scale.std
            for name, scale in self.judges.items()
        ]
        return np.asarray(np.sum(parts, axis=0), dtype=np.float64)

    def save(self, path: Path | str) -> None:
        """Write the scales as JSON, whole or not at all."""
        content = {name: asdict(scale) for name, scale in self.judges.items()}
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"judges": content}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read what `save` wrote.

        Raises:
            ScoreError: The file is missing or no score.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))["judges"]
            return cls({name: JudgeScale(**scale) for name, scale in content.items()})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ScoreError(
                f"score={path}: no readable score ({error}); name a file that `Score.save` wrote"
            ) from error
