"""A strategy's own state on its way from one object to the next: as bytes, and back."""

from typing import Any

import msgspec

from host.api import State, Strategy, TandemError

__all__ = ["StateNotCarried", "carry_state", "encode_state"]

_ENCODER = msgspec.msgpack.Encoder()


class StateNotCarried(TandemError):  # noqa: N818 - the fact, in the words operators see
    """A saved strategy state does not fit the class that should take it over."""


def encode_state(strategy: Strategy[Any]) -> bytes:
    """Return a strategy's state as msgpack; raises whatever a state that is no plain data raises."""
    return _ENCODER.encode(strategy.state)


def carry_state(state_type: type[State], version: int, data: bytes, instance: str) -> State:
    """Return a saved state as `state_type`; raise `StateNotCarried` naming what does not fit."""
    wanted = state_type.state_version
    try:
        plain = msgspec.msgpack.decode(data)
        for step in range(version, wanted):
            plain = state_type.upgrade(step, plain)
        if version > wanted:
            raise StateNotCarried(
                f"instance {instance}: the saved state has version {version}, "
                f"{state_type.__name__} knows up to {wanted}; bring the newer plugin back"
            )
        return msgspec.convert(plain, state_type, str_keys=True)  # it may have been JSON on the way
    except StateNotCarried:
        raise
    except (Exception, SystemExit) as error:
        raise StateNotCarried(
            f"instance {instance}: the saved state (version {version}) does not fit "
            f"{state_type.__name__} (version {wanted}): {error}; give the new field a default or "
            f"raise state_version and extend upgrade()"
        ) from error
