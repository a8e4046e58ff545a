"""Training on one or several devices: each has a copy of the weights, and a batch is divided among them.

`tf.distribute.MirroredStrategy` keeps the copies alike; a single device has a strategy with the same methods.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xcli.core.tensorflow import load_tensorflow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray


class Replicas:
    """The devices of a training.

    Args:
        devices: TensorFlow devices of one kind.

    Attributes:
        count: number of devices.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        distribute = load_tensorflow().distribute
        self.count = len(devices)
        if self.count > 1:
            self._strategy = distribute.MirroredStrategy(list(devices))
        else:
            self._strategy = distribute.OneDeviceStrategy(devices[0])

    def scope(self) -> AbstractContextManager[Any]:
        """Variables made within this scope have a copy on every device."""
        scope: AbstractContextManager[Any] = self._strategy.scope()
        return scope

    def split_batch(self, array: NDArray[Any]) -> Any:
        """Divides the rows of a batch among the devices, in order; a batch that is too short is padded with zeros.

        Args:
            array: [b, ...].
        """
        import numpy as np

        tf = load_tensorflow()
        missing = -len(array) % self.count
        if missing:
            array = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        share = len(array) // self.count

        def own_share(context: Any) -> Any:
            start = context.replica_id_in_sync_group * share
            return tf.constant(array[start : start + share])

        return self._strategy.experimental_distribute_values_from_function(own_share)

    def run(self, function: Callable[..., Any], *shares: Any) -> Any:
        """Calls a function on every device with its share and returns the sums of the results; in a traced function.

        Args:
            function: takes the shares, and returns a list of tensors.
            shares: what `split_batch` returned.
        """
        tf = load_tensorflow()
        found = self._strategy.run(function, args=shares)
        return [self._strategy.reduce(tf.distribute.ReduceOp.SUM, one, axis=None) for one in found]

    def local_rows(self, whole: Any, rows: Any) -> Any:
        """Returns the rows of a tensor for the whole batch that belong to the current device; within `run`.

        Args:
            whole: [b, ...].
            rows: number of rows of each device.
        """
        number = load_tensorflow().distribute.get_replica_context().replica_id_in_sync_group
        return whole[number * rows : (number + 1) * rows]
