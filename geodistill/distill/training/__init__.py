"""Parts of the trainer: losses of a step, several processes, checkpoints, reports."""
