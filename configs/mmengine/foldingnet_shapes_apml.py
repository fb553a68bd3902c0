"""A small FoldingNet on procedural shapes, trained with APML by MMEngine's own Runner. From the repository's root:

    python -c "from mmengine.config import Config; from mmengine.runner import Runner; \
        Runner.from_cfg(Config.fromfile('configs/mmengine/foldingnet_shapes_apml.py')).train()"
"""

_base_ = './_base_/shapes.py'

# The one line to change: see pcn_shapes_apml.py for what may stand here.
loss = dict(type='APML', reduction='mean')

model = dict(
    type='CompletionModel',
    # The paper judges the second folding alone; leave stage_weights out to judge the first one too.
    net=dict(type='FoldingNet', num_pred=529, encoder_channel=256),
    stage_weights=dict(coarse=0),
    loss=loss)

work_dir = './work_dirs/foldingnet_shapes_apml'
