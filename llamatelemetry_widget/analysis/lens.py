"""What a distribution over the vocabulary says, row by row: its likeliest words, its entropy, where one word stands.

In: logits of some rows. Out: small arrays; the logits need not be kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
_LEAST = np.float32(-1e30)  # of a logit: minus infinity times no probability is nothing


@dataclass(frozen=True, eq=False)
class Lens:
    """What a model would say if it ended after each layer.

    Its own final norm and output matrix, applied by llama.cpp's kernels to the residual stream after every layer: a way
    to read the stream, not what the model thinks.

    Attributes
    ----------
    layers : list of int
        -1 is the embedding, before the first layer.
    positions : int32 (positions,)
        Tokens of the trace; what is read at a token is the word after it.
    ids : int32 (layers, positions, k)
        The likeliest words.
    probabilities : float32 (layers, positions, k)
    entropy : float32 (layers, positions)
        In nats.
    final_ids : int32 (positions,)
        The word that the model ends with, its likeliest.
    final_probability : float32 (layers, positions)
        Of that word, after each layer.
    final_rank : int32 (layers, positions)
    kl : float32 (layers, positions)
        D(final || layer): how far the distribution after a layer is from the one that the model ends with, in nats.
    pieces : dict of int to bytes
        Of every word in `ids`.
    """

    layers: list[int]
    positions: Ints
    ids: Ints
    probabilities: Floats
    entropy: Floats
    final_ids: Ints
    final_probability: Floats
    final_rank: Ints
    kl: Floats
    pieces: dict[int, bytes]

    def to_pandas(self) -> pd.DataFrame:
        """One row per layer and position.

        Returns
        -------
        DataFrame
            ``layer``, ``position``, ``id``, ``word`` (the likeliest), ``probability``, ``entropy``, ``final_id``,
            ``final_probability``, ``final_rank``, ``kl``.
        """
        import pandas as pd

        layers, positions = np.meshgrid(self.layers, self.positions, indexing="ij")
        first = self.ids[:, :, 0].ravel()
        frame: pd.DataFrame = pd.DataFrame(
            {
                "layer": layers.ravel(),
                "position": positions.ravel(),
                "id": first,
                "word": [self.pieces[int(i)].decode("utf-8", "replace") for i in first],
                "probability": self.probabilities[:, :, 0].ravel(),
                "entropy": self.entropy.ravel(),
                "final_id": np.tile(self.final_ids, len(self.layers)),
                "final_probability": self.final_probability.ravel(),
                "final_rank": self.final_rank.ravel(),
                "kl": self.kl.ravel(),
            }
        )
        return frame


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of logits, read.

    Attributes
    ----------
    ids : int32 (rows, k)
        The likeliest words, the likeliest first.
    probabilities : float32 (rows, k)
    entropy : float32 (rows,)
        In nats.
    probability : float32 (rows,)
        Of the word that was asked about.
    rank : int32 (rows,)
        Of that word, 1 = the likeliest.
    kl : float32 (rows,)
        D(final || row), in nats.
    """

    ids: Ints
    probabilities: Floats
    entropy: Floats
    probability: Floats
    rank: Ints
    kl: Floats


@dataclass(frozen=True, eq=False)
class Final:
    """The distributions that rows are compared with.

    Attributes
    ----------
    ids : int32 (rows,)
        Their likeliest words.
    shares : float32 (rows, vocab)
        Probabilities.
    negentropy : float64 (rows,)
        Sum of p log p.
    """

    ids: Ints
    shares: Floats
    negentropy: NDArray[np.float64]

    @classmethod
    def of(cls, logits: Floats) -> Final:
        """From logits (rows, vocab), which stay as they are."""
        shifted = np.maximum(logits - logits.max(1, keepdims=True), _LEAST)
        shares = np.exp(shifted)
        total = shares.sum(1, dtype=np.float64)
        shares /= total[:, None].astype(np.float32)
        np.multiply(shifted, shares, out=shifted)
        negentropy = shifted.sum(1, dtype=np.float64) - np.log(total)
        return cls(logits.argmax(1).astype(np.int32), shares, negentropy)

    def __getitem__(self, rows: slice) -> Final:
        return Final(self.ids[rows], self.shares[rows], self.negentropy[rows])


def read_rows(logits: Floats, final: Final, k: int) -> Rows:
    """Read rows of logits.

    Parameters
    ----------
    logits : float32 (rows, vocab)
        Overwritten.
    final : Final
        What the model ends with in each row: its word is asked about.
    k : int
        Likeliest words kept; not more than there are.
    """
    k, targets = min(k, logits.shape[1]), final.ids
    rows = np.arange(len(logits))
    top = np.argpartition(logits, -k, axis=1)[:, -k:]
    order = np.argsort(-np.take_along_axis(logits, top, 1), axis=1, kind="stable")
    ids = np.take_along_axis(top, order, 1).astype(np.int32)
    rank = 1 + (logits > logits[rows, targets][:, None]).sum(1)
    logits -= logits.max(1, keepdims=True)
    np.maximum(logits, _LEAST, out=logits)
    chosen, likely = logits[rows, targets].copy(), np.take_along_axis(logits, ids.astype(np.int64), 1)
    weights = np.exp(logits)
    total = weights.sum(1, dtype=np.float64)
    np.multiply(weights, logits, out=weights)
    entropy = np.log(total) - weights.sum(1, dtype=np.float64) / total
    np.multiply(final.shares, logits, out=weights)
    kl = final.negentropy + np.log(total) - weights.sum(1, dtype=np.float64)
    return Rows(
        ids,
        (np.exp(likely) / total[:, None]).astype(np.float32),
        entropy.astype(np.float32),
        (np.exp(chosen) / total).astype(np.float32),
        rank.astype(np.int32),
        np.maximum(kl, 0).astype(np.float32),
    )
