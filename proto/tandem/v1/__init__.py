"""The control API: messages in `*_pb2`, client stubs in `*_pb2_grpc`."""
