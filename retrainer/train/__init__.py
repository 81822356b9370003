"""How a model is trained: the recipes, their losses, and what they share."""
