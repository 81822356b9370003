"""The error tree and its one table."""

import gateway.errors as errors


def _all(kind: type[errors.GatewayError]) -> list[type[errors.GatewayError]]:
    return [kind, *(found for sub in kind.__subclasses__() for found in _all(sub))]


def test_every_error_has_a_status_and_openais_shape() -> None:
    for kind in _all(errors.GatewayError):
        error = kind(503) if kind is errors.BadStatus else kind()
        shape = errors.as_openai(error)["error"]
        assert 400 <= errors.status_of(error) < 600
        assert set(shape) == {"message", "type", "param", "code"}
        assert shape["message"]


def test_no_class_in_the_table_is_hidden_by_an_earlier_one() -> None:
    kinds = [kind for kind, _ in errors.STATUS]
    for number, kind in enumerate(kinds):
        assert not any(issubclass(kind, earlier) for earlier in kinds[:number])
