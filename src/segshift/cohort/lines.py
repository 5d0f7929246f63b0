"""One line of a manifest to one case: files, raters, the label's meaning, held against the others.

`LineReader` is made of a manifest's columns and options; `prepare` looks at all lines, `case` makes
the case of each. What is wrong raises InputError that names the line.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segshift.cohort.annotation import Annotation
from segshift.cohort.case import KNOWN, SPACING_KNOWN, Case
from segshift.cohort.labelling import NONZERO, LabelMap, label_map, parsed_rules
from segshift.errors import InputError
from segshift.seeds import generator

REQUIRED = ("id", "patient", "site", "label")


class LineReader:
    """Turns lines into cases, and holds them against the others."""

    def __init__(
        self,
        path: Path,
        columns: Sequence[str],
        rules: Mapping[str, Any] | None,
        rater: int | str,
        sites: Sequence[str],
    ) -> None:
        self.path, self.sites = path, sites
        self.folder, self.columns, self.rules, self.rater = path.parent, columns, rules, rater
        self.images = [c for c in columns if c == "image"] or [
            c for c in columns if c.startswith("image_")
        ]
        self.channels = tuple(column.removeprefix("image_") for column in self.images)
        labels = [c.removeprefix("label_") for c in columns if c.startswith("label_")]
        self.raters = ["label", *(f"label_{n}" for n in labels if n.isdigit())]
        self.own = [n for n in labels if not n.isdigit() and (rules is None or n in rules)]
        self.private = {*REQUIRED, *self.images, "structures", "maps", *self.raters}
        self.private |= {f"label_{name}" for name in self.own}
        self.structures: tuple[str, ...] = ()
        self._line_of: dict[str, int] = {}
        self._maps: dict[tuple[str, str], LabelMap] = {}
        missing = [c for c in REQUIRED if c not in columns and not (c == "label" and self.own)]
        missing += [] if self.images else ["image"]
        if missing:
            raise InputError(f"{path} lacks the column(s) {missing}; it has {list(columns)}")

    def prepare(self, lines: Sequence[Mapping[str, str]]) -> None:
        """Read what the labels mean, and which structures most of the lines have.

        Raises InputError for wrong options, and where nothing says what any label means: that is
        no line's fault.
        """
        usual: Counter[frozenset[str]] = Counter()
        named: dict[frozenset[str], tuple[str, ...]] = {}
        for line in lines:
            try:
                names = tuple(self._map(str(self.path), line).structures)
            except InputError:
                if self.rules is not None or not (self.own or "structures" in self.columns):
                    raise
                continue  # `case` tells with the line
            if names:
                usual[frozenset(names)] += 1
                named.setdefault(frozenset(names), names)
        if usual:
            self.structures = named[usual.most_common(1)[0][0]]

    def case(self, where: str, number: int, line: Mapping[str, str]) -> Case:
        """The case of one line."""
        _check_line(where, line, self.columns, self.images)
        if line["id"] in self._line_of:
            raise InputError(
                f"{where}: id {line['id']!r} was used before, on line {self._line_of[line['id']]}"
            )
        self._line_of[line["id"]] = number
        meaning = self._map(where, line)
        names = tuple(meaning.structures)
        if names and set(names) != set(self.structures):
            raise InputError(
                f"{where}: case {line['id']!r} has the structures {sorted(names)}, most "
                f"others {sorted(self.structures)}; all cases of a cohort need the same, with "
                "`none` where one is not annotated"
            )
        own = {name: line[f"label_{name}"] for name in self.own if line[f"label_{name}"]}
        drawn = [line[column] for column in self.raters if line.get(column)]
        first, others = self._chosen(where, line, drawn)
        annotation = Annotation(
            label=self.folder / first if first else None,
            values=tuple(
                meaning.structures[name] if (name in own if name in self.own else first) else None
                for name in names and self.structures
            ),
            files=tuple(
                self.folder / own[name] if name in own else None for name in self.structures
            )
            if own
            else (),
            ignore_values=meaning.ignore,
            background_values=meaning.background,
            raters=tuple(self.folder / other for other in others),
            consensus=str(self.rater) if others else "",
            rater_files={
                column: self.folder / line[column]
                for column in self.raters
                if len(self.raters) > 1 and line.get(column)
            },
        )
        return Case(
            id=line["id"],
            patient=line["patient"],
            site=line["site"],
            images=tuple(self.folder / line[column] for column in self.images),
            annotation=annotation,
            tags={key: value for key, value in line.items() if key not in self.private},
            maps=self.folder / line["maps"] if line.get("maps") else None,
        )

    def _map(self, where: str, line: Mapping[str, str]) -> LabelMap:
        text = "" if self.rules is not None else line.get("structures") or ""
        key = (line.get("site") or "", text)
        if key not in self._maps:
            rules = self.rules if self.rules is not None else parsed_rules(where, text)
            source = where if self.rules is None else "data.structures"
            if self.rules is None:
                rules = {**rules, **{name: NONZERO for name in self.own if name not in rules}}
            if not rules and not any(line.get(column) for column in self.raters):
                return LabelMap({})  # images alone: to look at, to check, to predict
            if not rules:
                raise InputError(
                    f"{where}: nothing says what the label's values mean; add a column "
                    "`structures` ('liver=1 kidney=2') or set "
                    "data.structures='{liver: 1, kidney: 2}'"
                )
            self._maps[key] = label_map(
                source, rules, site=key[0], sites=self.sites, own_files=self.own
            )
        return self._maps[key]

    def _chosen(
        self, where: str, line: Mapping[str, str], drawn: Sequence[str]
    ) -> tuple[str | None, Sequence[str]]:
        """The label to take, and those to combine with it."""
        if not drawn:
            return None, ()
        if self.rater == "random":
            return generator(0, "rater", line["id"]).choice(drawn), ()
        if not isinstance(self.rater, int):
            return drawn[0], drawn[1:]
        column = "label" if self.rater == 1 else f"label_{self.rater}"
        if not line.get(column):
            raise InputError(
                f"{where}: case {line['id']!r} has no label in the column {column!r} of "
                f"data.rater={self.rater}; it has {[c for c in self.raters if line.get(c)]}"
            )
        return line[column], ()


def check_rater(rater: int | str) -> None:
    """Raises InputError that lists the known ones."""
    if rater not in ("random", "majority", "staple") and not (type(rater) is int and rater >= 1):
        raise InputError(f"data.rater={rater}: a number from 1, random, majority or staple")


def _check_line(
    where: str, line: Mapping[str, str], columns: Sequence[str], image_columns: Sequence[str]
) -> None:
    if None in line or any(value is None for value in line.values()):
        raise InputError(f"{where}: the number of values differs from the {len(columns)} columns")
    for column in (*REQUIRED[:3], *image_columns):
        if not line[column].strip():
            raise InputError(f"{where}: column {column!r} is empty")
    if (line.get(SPACING_KNOWN) or "").strip().lower() not in KNOWN:
        raise InputError(
            f"{where}: column {SPACING_KNOWN!r} is {line[SPACING_KNOWN]!r}; it is true, false "
            "(what the files say is no physical size) or empty (as the files say)"
        )
    if not re.fullmatch(r"[^/\\.\s][^/\\]*", line["site"]):
        raise InputError(
            f"{where}: site {line['site']!r} becomes part of names, so it may not hold '/' or "
            "'\\' nor begin with '.' or a space"
        )
