"""The messages of bodyfit's service as Python; made from ../bodyfit/v1/bodyfit.proto."""
