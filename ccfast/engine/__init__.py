"""The engine: it holds the plan that a solver writes, and the one loop that runs it on a backend."""
