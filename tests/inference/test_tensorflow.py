"""What xcli.core.tensorflow does with the real TensorFlow and Keras; the tests of core run without them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from xcli.core.errors import UsageError
from xcli.core.tensorflow import apply_precision, arithmetic_dtype, default_keras_settings, load_keras, load_tensorflow


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


@pytest.mark.parametrize(
    ("module", "load", "failure", "shown"),
    [
        ("keras", load_keras, "raise ValueError('Received: floatx=float128')", "Received: floatx=float128"),
        ("keras", load_keras, "import a_backend_that_is_not_installed", "No module named 'a_backend"),
        ("tensorflow", load_tensorflow, "assert False", "AssertionError"),
    ],
)
def test_settings_with_which_keras_does_not_start(
    module: str, load: Any, failure: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_tensorflow()
    (tmp_path / f"{module}.py").write_text(failure)
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match=rf"{shown}.*\): correct or remove its settings, keras.json in ~/.keras"):
        load.__wrapped__()


def test_settings_of_the_user_apply_outside_alone() -> None:
    config = load_keras().config

    def settings() -> tuple[object, ...]:
        return config.floatx(), config.epsilon(), config.image_data_format(), config.dtype_policy().name

    default = ("float32", 1e-7, "channels_last", "float32")
    assert settings() == default
    try:
        config.set_floatx("float16")
        config.set_epsilon(0.1)
        config.set_image_data_format("channels_first")
        config.set_dtype_policy("mixed_bfloat16")
        with default_keras_settings():
            assert settings() == default
        assert settings() == ("float16", 0.1, "channels_first", "mixed_bfloat16")
    finally:
        config.set_floatx("float32")
        config.set_epsilon(1e-7)
        config.set_image_data_format("channels_last")
        config.set_dtype_policy("float32")
