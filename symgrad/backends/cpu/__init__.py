"""The CPU backend: kernel text, compiled by Numba and LLVM, run by a native driver."""
