"""Which case a sample is cut from: a pure function of the seed and the sample's number.

Cases lie in groups. Every turn takes one case from each group, so that all groups have the same
share; within a group every pass takes each case once. How cases are grouped is the balance.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segshift.data.stored import StoredCase
from segshift.errors import InputError
from segshift.seeds import generator

BALANCES = ("none", "site", "structure")


@dataclass(frozen=True, slots=True)
class CaseOrder:
    """Sample number to case number. `groups` may share cases; none is empty."""

    groups: tuple[tuple[int, ...], ...]
    seed: int

    def __call__(self, sample: int) -> int:
        """The place of this sample's case among the cases."""
        if len(self.groups) == 1:
            return self._of_group(0, sample, "order")
        turn, place = divmod(sample, len(self.groups))
        group = generator(self.seed, "groups", turn).permutation(len(self.groups))[place]
        return self._of_group(int(group), turn, "order", int(group))

    def _of_group(self, group: int, visit: int, *purpose: str | int) -> int:
        members = self.groups[group]
        turn, place = divmod(visit, len(members))
        random = generator(self.seed, str(purpose[0]), *purpose[1:], turn)
        return members[int(random.permutation(len(members))[place])]


def case_order(cases: Sequence[StoredCase], *, balance: str, seed: int) -> CaseOrder:
    """The order under a balance.

    `none` takes all cases alike, `site` all sites alike, and `structure` gives each structure, and
    all cases together, the same share: cases with a rare structure come more often, those without
    any still come.
    Raises InputError for another balance.
    """
    everyone = tuple(range(len(cases)))
    if balance == "none":
        return CaseOrder((everyone,), seed)
    if balance == "site":
        sites = sorted({stored.case.site for stored in cases})
        return CaseOrder(
            tuple(tuple(i for i in everyone if cases[i].case.site == site) for site in sites), seed
        )
    if balance == "structure":
        present = [set(np.unique(stored.landmarks()[:, 0]).tolist()) for stored in cases]
        structures = sorted(set().union(*present))
        having = (tuple(i for i in everyone if s in present[i]) for s in structures)
        return CaseOrder((everyone, *having), seed)
    raise InputError(f"sampling.balance={balance}: known are {', '.join(BALANCES)}")
