"""Scores of masks that any software made, against references: files to pairs, pairs to numbers.

`segshift.scoring.scores` needs torch and is not imported here, so wrong files are told at once.
"""

from segshift.scoring.pairs import Pair, Pairs, pair_files

__all__ = ["Pair", "Pairs", "pair_files"]
