"""Instance normalisation on a CPU in one pass over the features, in the order they lie in.

torch's own copies channels-last features to channels-first and back, which took a third of a
window's time. Group normalisation with a group per channel is the same function without the copies.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch.nn import functional
from torch.overrides import TorchFunctionMode


class OnePassNorms(TorchFunctionMode):
    """While it is entered, `functional.instance_norm` of a CPU tensor's own statistics is fast.

    Small maps are made channels-first before: there torch's group normalisation strides over
    channels-last features, and takes up to 27 times as long.
    """

    SMALL = 1024  # voxels of a map from which on torch goes through them in their order

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
            features, eps = given["input"], given.get("eps", 1e-5)
            channels, voxels = features.shape[1], features[0, 0].numel()
            if given.get("running_mean") is None and voxels > 1:  # of one it raises, as it should
                scale, offset = given.get("weight"), given.get("bias")
                if voxels < self.SMALL:
                    features = features.contiguous()
                return functional.group_norm(features, channels, scale, offset, eps)
        return func(*args, **kwargs)


POSITIONS = (
    "input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps",
)  # fmt: skip
