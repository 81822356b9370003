"""How good a model is: its answers, its scores, its confidence, and the gate."""
