"""Handlers: they watch a run through ``engine.state`` and never train.

Each is a small class with ``attach(engine)``; those with memory have ``state_dict`` and ``load_state_dict``
(tensors and plain numbers), which the resume file stores.

Ignite calls the handlers of an event in the order in which they were attached, so the order of the list
matters:

1. `divergence.DivergenceGuard`: raises before anything of a bad iteration is written.
2. `accuracy.AccuracyAverage`,
3. `convergence.Convergence` and the monitors `collapse.ModeCollapseMonitor`,
   `black.ConstantOutputMonitor` and `vanishing.GradientNormMonitor`, each with an `alarm.Alarm`:
   add entries to ``engine.state.logs``.
4. `scalars.TrainingLogger`: writes ``engine.state.logs``, so after everything that adds to it.
5. `images.ImageGrid` or `samples.SampleGrid`, and `progression.Progression`, which reads its files
6. `validation.Validation` (which calls `best.BestModelSaver`)
7. `budget.TimeLimit`
8. the resume file's saver: after everything whose state it stores, and it calls
    `scalars.TrainingLogger.flush` first.
9. `progress.ProgressBar`: last, so that the bar moves when an iteration is really done.

All of them work at ITERATION_COMPLETED, "every N epochs" too (at the last iteration of the epoch). At
EPOCH_COMPLETED they could come after a resume file of that iteration; a run killed between the two would
never make up for them.
"""
