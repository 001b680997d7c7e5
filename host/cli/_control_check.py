"""What would keep a node from serving its control API: an address that is not safe, a certificate that is no good."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from host.api import TandemError
from host.config import LoadedConfig, Problem

__all__ = ["control_problems"]


def control_problems(loaded: LoadedConfig) -> Iterator[Problem]:
    """Yield what `tandem run` would refuse of `[control]`."""
    from host.control.listen import ListenRefused, plan_listeners
    from host.control.tls import ServerTls, TlsFiles
    from host.control.tokens import TOKENS_FILE, TokenStore

    section = loaded.config.control
    has_proof = section.tls is not None and section.tls.client_ca is not None
    try:
        tokens = TokenStore.open(loaded.config.node.data_dir / TOKENS_FILE)
        has_proof = has_proof or any(not one.is_expired(time.time_ns()) for one in tokens.records())
    except TandemError as error:
        yield loaded.problem(("node", "data_dir"), str(error))
    if section.tls is not None:
        files = TlsFiles(
            certificate=section.tls.certificate,
            key=section.tls.key,
            client_ca=section.tls.client_ca,
            require_client_certificate=section.tls.require_client_certificate,
        )
        try:
            ServerTls(files, datetime.now(UTC))
        except TandemError as error:
            yield loaded.problem(("control", "tls"), str(error))
    try:
        plan_listeners(
            loaded.config.control_listen,
            has_server_certificate=section.tls is not None,
            has_caller_proof=has_proof,
        )
    except ListenRefused as error:
        yield loaded.problem(("control", "listen"), f'"{error.address}": {error.text}')
