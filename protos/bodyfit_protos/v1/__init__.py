"""Generated from bodyfit/v1/bodyfit.proto by `make protos`."""
