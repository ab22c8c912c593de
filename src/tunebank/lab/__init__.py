"""The experiments: networks to try, and what reuse is compared with."""
