"""Search for training settings with Optuna: each trial is a training in a process of its own."""
