"""What is shown of a result: the data first, the drawing apart."""

from tunebank.report.bench import BenchRow, bench_rows
from tunebank.report.kernels import KernelRow, kernel_rows, summary_lines
from tunebank.report.plan import PlanRow, plan_lines, plan_rows
from tunebank.report.profile import PROFILE_COLUMNS, profile_rows
from tunebank.report.table import print_bench, print_kernels, print_plan, print_table

__all__ = [
    "PROFILE_COLUMNS",
    "BenchRow",
    "KernelRow",
    "PlanRow",
    "bench_rows",
    "kernel_rows",
    "plan_lines",
    "plan_rows",
    "print_bench",
    "print_kernels",
    "print_plan",
    "print_table",
    "profile_rows",
    "summary_lines",
]
