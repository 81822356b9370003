"""From nothing to a log: prompts, or scenarios, labelled by the teacher through the gateway."""
