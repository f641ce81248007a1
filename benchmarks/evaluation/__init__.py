"""The paper's evaluation and what goes past it, simulated with the scheduler that serves."""
