"""What is shown of a result: the data first, the drawing apart."""

from tunebank.report.bench import BenchRow, bench_rows
from tunebank.report.kernels import KernelRow, kernel_rows, summary_lines
from tunebank.report.table import print_bench, print_kernels, print_table

__all__ = [
    "BenchRow",
    "KernelRow",
    "bench_rows",
    "kernel_rows",
    "print_bench",
    "print_kernels",
    "print_table",
    "summary_lines",
]
