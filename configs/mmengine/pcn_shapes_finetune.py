"""Fine-tuning: a Chamfer-trained checkpoint goes on with APML. Train pcn_shapes_chamfer.py first.

No loss has anything in a checkpoint, so one made with any other loads as it is. `load_from` takes the weights alone
and starts at epoch 0; `resume = True` would take up the optimizer and the epoch too.
"""

_base_ = './pcn_shapes_apml.py'

load_from = './work_dirs/pcn_shapes_chamfer/epoch_3.pth'
train_cfg = dict(max_epochs=2)
optim_wrapper = dict(optimizer=dict(lr=2e-4))  # a fifth of the first training's

work_dir = './work_dirs/pcn_shapes_finetune'
