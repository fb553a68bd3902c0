"""What all configs here share: procedural shapes (nothing to download), the loops and the optimizer.

Sized for a laptop's CPU: under a minute. For real training, more samples and points, a longer schedule, and
num_workers above 0. On a GPU nothing needs to change.
"""

custom_imports = dict(imports=['apml_plugin.hosts.mmengine'])
default_scope = 'mmengine'

points = 512
train_dataloader = dict(
    dataset=dict(type='CompletionShapes', split='train', size=160, num_partial=512, num_gt=points),
    sampler=dict(type='DefaultSampler', shuffle=True),
    batch_size=8,
    num_workers=0,
    drop_last=True,
    collate_fn=dict(type='default_collate'))
val_dataloader = dict(
    dataset=dict(type='CompletionShapes', split='test', size=20, num_partial=512, num_gt=points),
    sampler=dict(type='DefaultSampler', shuffle=False),
    batch_size=8,
    num_workers=0,
    collate_fn=dict(type='default_collate'))
val_evaluator = dict(type='CompletionMetric')

train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)
val_cfg = dict()
# Adam's step does not depend on the scale of the loss; clipping does. With reduction='sum' the gradient is about
# a thousand times larger than with 'mean', and clip_grad would act on every step.
optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-3))

default_hooks = dict(
    logger=dict(type='LoggerHook', interval=10),
    checkpoint=dict(type='CheckpointHook', interval=1, save_best='completion/EMD', rule='less',
                    save_param_scheduler=False),
    # With several processes: batch norm's statistics are averaged before a checkpoint is saved or judged.
    sync_buffer=dict(type='SyncBuffersHook'))
randomness = dict(seed=0)
