"""Compiles the GPU kernels without a GPU and reports what the compiler made of them."""
