"""A table as a Parquet file.

In: a pandas frame. Out: a file that is whole or not there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BackendMissing

if TYPE_CHECKING:
    import pandas as pd


def parquet(frame: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a frame without its index.

    Raises
    ------
    BackendMissing
        pyarrow is not installed (the extra ``export``).
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        frame.to_parquet(part, index=False)
        part.replace(target)
    except ImportError as error:
        raise BackendMissing("Parquet needs pyarrow: pip install 'llamatelemetry-widget[export]'") from error
    finally:
        part.unlink(missing_ok=True)
    return target
