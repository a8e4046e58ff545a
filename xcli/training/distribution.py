"""Training on several devices at once: a copy of the weights on each, the examples of a batch divided among them.

With one device everything here passes through; with several, `tf.distribute.MirroredStrategy` keeps the copies alike.
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
        devices: TensorFlow devices of one kind; the first one also does what is not divided.

    Attributes:
        count: number of devices.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        tf = load_tensorflow()
        self.count = len(devices)
        self._device = devices[0]
        self._strategy = tf.distribute.MirroredStrategy(list(devices)) if self.count > 1 else None

    def scope(self) -> AbstractContextManager[Any]:
        """Variables that are made within it have a copy on every device."""
        if self._strategy is None:
            device: AbstractContextManager[Any] = load_tensorflow().device(self._device)
            return device
        scope: AbstractContextManager[Any] = self._strategy.scope()
        return scope

    def split_batch(self, array: NDArray[Any]) -> Any:
        """The rows of a batch, shared out to the devices in order; a short batch is filled up with zeros.

        Args:
            array: [b, ...].
        """
        import numpy as np

        tf = load_tensorflow()
        if self._strategy is None:
            return tf.constant(array)
        missing = -len(array) % self.count
        if missing:
            array = np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        share = len(array) // self.count
        return self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(
                array[context.replica_id_in_sync_group * share : (context.replica_id_in_sync_group + 1) * share]
            )
        )

    def run(self, function: Callable[..., Any], *shares: Any) -> Any:
        """Calls a function on every device with its share, within a traced function; gives the sums of its results.

        Args:
            function: of the shares, to a list of tensors.
            shares: what `divided` gave.
        """
        if self._strategy is None:
            return function(*shares)
        tf = load_tensorflow()
        found = self._strategy.run(function, args=shares)
        return [self._strategy.reduce(tf.distribute.ReduceOp.SUM, one, axis=None) for one in found]

    def local_rows(self, whole: Any, rows: Any) -> Any:
        """Of a tensor for the whole batch the rows of the device that asks; for within `run`.

        Args:
            whole: [b, ...].
            rows: number of rows of each device.
        """
        if self._strategy is None:
            return whole
        number = load_tensorflow().distribute.get_replica_context().replica_id_in_sync_group
        return whole[number * rows : (number + 1) * rows]
