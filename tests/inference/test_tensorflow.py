"""What xcli.core.tensorflow does with the real TensorFlow and Keras; the tests of core run without them."""

from __future__ import annotations

import pytest

from xcli.core.errors import UsageError
from xcli.core.tensorflow import apply_precision, arithmetic_dtype, load_keras, load_tensorflow


def test_tf32_only_where_it_was_asked_for() -> None:
    allowed = load_tensorflow().config.experimental.tensor_float_32_execution_enabled
    apply_precision("tf32")
    assert allowed()
    apply_precision("float32")
    assert not allowed()
    assert [arithmetic_dtype(name) for name in ("float32", "tf32", "bfloat16")] == ["float32", "float32", "bfloat16"]  # type: ignore[arg-type]


def test_tensorflow_and_keras_are_loaded_once() -> None:
    assert load_tensorflow() is load_tensorflow()
    assert load_keras() is load_keras()
    assert load_keras().backend.backend() == "tensorflow"


def test_another_backend_of_keras_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UsageError, match=r"Keras runs on 'jax' here.*set KERAS_BACKEND=tensorflow"):
        load_keras.__wrapped__()
