"""Server reflection: what a client without our proto files asks, such as grpcurl."""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any, Final

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc.aio import ServicerContext
from grpc_reflection.v1alpha.reflection import SERVICE_NAME, aio
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from grpc_status import rpc_status

from host.control.callers import Callers
from host.control.principal import NotAuthenticated
from host.control.reasons import Refused, refusal_of, status_of

__all__ = ["Reflection"]


class _Pool:
    """The default pool, which finds methods too: `tandem.v1.NodeService.GetStatus` is in its service's file."""

    def __init__(self) -> None:
        self._pool: Final[Any] = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - protobuf's own name
        """Return the file that defines a symbol; raise `KeyError`."""
        try:
            file: FileDescriptor = self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            file = self._pool.FindServiceByName(service).methods_by_name[method].containing_service.file
        return file


class Reflection(aio.ReflectionServicer):
    """Tells what services there are, to whoever may call any of them: from far away that takes a token too."""

    def __init__(
        self,
        service_names: tuple[str, ...],
        callers: Callers,
        on_refused: Callable[[str, str, Refused], None],
    ) -> None:
        super().__init__(service_names, _Pool())
        self._callers = callers
        self._on_refused = on_refused

    async def ServerReflectionInfo(  # type: ignore[override]  # noqa: N802 - the method's name in its proto
        self,
        request_iterator: AsyncIterable[ServerReflectionRequest],
        context: "ServicerContext[ServerReflectionRequest, ServerReflectionResponse]",
    ) -> AsyncIterator[ServerReflectionResponse]:
        """Answer each question as it comes."""
        try:
            self._callers.identify(context.peer(), context.invocation_metadata() or ())
        except NotAuthenticated as error:
            refused = refusal_of(error)
            self._on_refused(f"{SERVICE_NAME}/ServerReflectionInfo", context.peer(), refused)
            await context.abort_with_status(rpc_status.to_status(status_of(refused)))
        answers: Any = super().ServerReflectionInfo(request_iterator, context)  # its stub says otherwise
        async for response in answers:
            yield response
