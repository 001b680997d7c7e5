"""Generated from the `.proto` files beside it; `tandem.v1` is the control API."""
