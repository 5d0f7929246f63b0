"""Instance normalisation on a CPU in one pass over the features, in the order they lie in.

torch's own copies channels-last features to channels-first and back, which took a third of a
window's time. Group normalisation with a group per channel is the same function without the copies.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode


class OnePassNorms(TorchFunctionMode):
    """While it is entered, `functional.instance_norm` of a CPU tensor's own statistics is fast."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401
        """Replace that one function."""
        kwargs = kwargs or {}
        if func is functional.instance_norm and args[0].device.type == "cpu":
            given = dict(zip(POSITIONS, args, strict=False)) | kwargs
            if given.get("running_mean") is None:
                features, eps = given["input"], given.get("eps", 1e-5)
                scale, offset = given.get("weight"), given.get("bias")
                channels, voxels = features.shape[1], features[0, 0].numel()
                if voxels < SMALL:
                    features = features.contiguous()
                return functional.group_norm(features, channels, scale, offset, eps)
        return func(*args, **kwargs)


SMALL = 1024  # voxels of a map; below it torch's group norm strides over channels-last features
POSITIONS = (
    "input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps",
)  # fmt: skip
