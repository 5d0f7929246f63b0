"""Intensities to the network's scale: chosen per channel for a plan, applied by the store.

As nnU-Net: `zscore` per image where the scale is arbitrary (MR, and everything unknown),
`clip_global` for CT, whose scale means the same everywhere, `rgb` for colours of 0 to 255.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from segshift.cohort import Case
from segshift.cohort.checks import load_case
from segshift.cohort.fingerprint import CaseFacts, intensities, read_facts
from segshift.errors import InputError
from segshift.plan.content import Normalisation

ZSCORE, CLIP_GLOBAL, RGB = "zscore", "clip_global", "rgb"
# Words of the manifest's column `modality` and of channels' names; all others are `zscore`.
WORDS = {
    "ct": CLIP_GLOBAL, "cbct": CLIP_GLOBAL, "rgb": RGB, "rgb_to_0_1": RGB,
    "red": RGB, "green": RGB, "blue": RGB, "r": RGB, "g": RGB, "b": RGB,
}  # fmt: skip
MOSTLY_KEPT = 0.75  # nnU-Net's: more of the median case is air if less is left by cropping
PART_VOXELS = 1 << 16  # of an image that are scaled at a time
AIR_HU = -500.0  # nothing but a CT has whole numbers below this everywhere


def normalised(
    image: np.ndarray, rules: Sequence[Normalisation] = (), *, inside: np.ndarray | None = None
) -> np.ndarray:
    """Float32 (C, D, H, W) on the network's scale; one rule per channel, none: all `zscore`.

    `inside` (D, H, W) is the body, which rules with `nonzero` need.
    """
    rules = rules or [Normalisation(ZSCORE)] * len(image)
    result = np.zeros(image.shape, dtype=np.float32)
    for channel, rule in enumerate(rules):
        if not rule.nonzero:
            result[channel] = SCHEMES[rule.scheme](image[channel], rule)
            continue
        assert inside is not None
        if inside.any():
            result[channel][inside] = SCHEMES[rule.scheme](image[channel][inside], rule)
    return result


def plan_normalisation(
    cases: Sequence[Case],
    *,
    channels: int,
    channel_names: Sequence[str] = (),
    wanted: str | Sequence[str] | None = None,
    kept: float = 1.0,
) -> tuple[Normalisation, ...]:
    """A rule per channel: the wanted scheme(s), else the modality's, the name's or the data's.

    `kept` is the share of voxels that cropping leaves of the median case: where much goes, as in
    images of a brain without its skull, `zscore` takes the body alone, for air would set its scale.
    The column `modality` has one word, or one per channel (`ct;pt`). Raises InputError for an
    unknown scheme, a number of them that is not the channels', and modalities that disagree.
    """
    if wanted:
        schemes = _checked(wanted, channels)
    else:
        schemes = _declared(cases, channels, channel_names) or _seen(cases, channels)
    facts = read_facts(cases) if CLIP_GLOBAL in schemes else []
    return tuple(
        _clipping(facts, channel)
        if scheme == CLIP_GLOBAL
        else Normalisation(scheme, nonzero=scheme == ZSCORE and kept < MOSTLY_KEPT)
        for channel, scheme in enumerate(schemes)
    )


def _checked(wanted: str | Sequence[str], channels: int) -> tuple[str, ...]:
    several = wanted if isinstance(wanted, list | tuple) else [wanted] * channels
    schemes = tuple(map(str, several))
    if len(schemes) != channels or not set(schemes) <= set(SCHEMES):
        raise InputError(
            f"plan.normalisation={wanted}: one of {', '.join(SCHEMES)}, or a list of one for each "
            f"of the {channels} channel(s)"
        )
    return schemes


def _declared(
    cases: Sequence[Case], channels: int, channel_names: Sequence[str]
) -> tuple[str, ...] | None:
    """What the manifest says, None if it says nothing."""
    told: dict[tuple[str, ...], Case] = {}
    for case in cases:
        words = case.tags.get("modality", "").lower().replace(";", " ").split()
        if len(words) > 1 and len(words) != channels:
            raise InputError(
                f"case {case.id!r} has the modalities {words} but {channels} channel(s); give one, "
                "or one per channel as in 'ct;pt'"
            )
        schemes = tuple(WORDS.get(word, ZSCORE) for word in words)
        told.setdefault(schemes * (channels if len(words) == 1 else 1), case)
    if len(told) > 1:
        (one, first), (other, second) = list(told.items())[:2]
        raise InputError(
            f"the modality of case {first.id!r} asks for {list(one)}, that of {second.id!r} for "
            f"{list(other)}; choose with plan.normalisation=zscore (or {CLIP_GLOBAL}, {RGB})"
        )
    if () not in told:
        return next(iter(told))
    names = [name.lower() for name in channel_names]
    if len(names) == 1:  # one file with all channels
        names *= channels
    return tuple(WORDS.get(n, ZSCORE) for n in names) if set(names) & set(WORDS) else None


def _seen(cases: Sequence[Case], channels: int) -> tuple[str, ...]:
    """Without a word: `clip_global` for channels that are in Hounsfield units in every case."""
    in_hu = np.ones(channels, dtype=bool)
    for case in cases:
        image = load_case(case).image.reshape(channels, -1)
        in_hu &= (image.min(axis=1) <= AIR_HU) & (image == np.round(image)).all(axis=1)
        if not in_hu.any():  # mostly at the first case, so that no time is lost
            break
    return tuple(CLIP_GLOBAL if hu else ZSCORE for hu in in_hu)


def _clipping(facts: Sequence[CaseFacts], channel: int) -> Normalisation:
    """From the structures' voxels; from all where no case has a structure."""
    found = intensities([one.foreground[channel] for one in facts])
    found = found or intensities([one.whole[channel] for one in facts])
    assert found is not None
    return Normalisation(CLIP_GLOBAL, found.p0_5, found.p99_5, found.mean, found.sd)


def _zscore(image: np.ndarray, _: Normalisation) -> np.ndarray:
    mean = image.mean(dtype=np.float64)
    squares = sum(float(np.square(image[part] - mean).sum()) for part in _parts(image))
    deviation = np.sqrt(squares / image.size)
    return _in_parts(image, lambda part: (part - mean) / np.maximum(deviation, 1e-8))


def _clip_global(image: np.ndarray, rule: Normalisation) -> np.ndarray:
    mean, sd = rule.mean, rule.sd
    assert mean is not None
    assert sd is not None
    return _in_parts(
        image,
        lambda part: (np.clip(part.astype(np.float64), rule.low, rule.high) - mean) / max(sd, 1e-8),
    )


def _rgb(image: np.ndarray, _: Normalisation) -> np.ndarray:
    return np.asarray(image / np.float32(255))


def _in_parts(image: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Float32: float64 of a whole volume would be the most memory that a prediction takes."""
    result = np.empty(image.shape, dtype=np.float32)
    for part in _parts(image):
        result[part] = scaled(image[part])
    return result


def _parts(image: np.ndarray) -> Iterator[slice]:
    """Of the first axis, of PART_VOXELS or one place each."""
    step = max(PART_VOXELS * len(image) // max(image.size, 1), 1)
    return (slice(at, at + step) for at in range(0, len(image), step))


SCHEMES: dict[str, Callable[[np.ndarray, Normalisation], np.ndarray]] = {
    ZSCORE: _zscore, CLIP_GLOBAL: _clip_global, RGB: _rgb,
}  # fmt: skip
