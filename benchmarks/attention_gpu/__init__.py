"""Parts of ``benchmarks.bench_attention_gpu``: shapes, contenders, limits of the chip, timing."""
