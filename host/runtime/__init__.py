"""The event loop's side: dispatch, instances, replay, supervision."""
