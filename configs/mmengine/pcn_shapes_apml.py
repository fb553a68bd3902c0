"""A small PCN on procedural shapes, trained with APML by MMEngine's own Runner. From the repository's root:

    python -c "from mmengine.config import Config; from mmengine.runner import Runner; \
        Runner.from_cfg(Config.fromfile('configs/mmengine/pcn_shapes_apml.py')).train()"
"""

_base_ = './_base_/shapes.py'

# The one line to change: any of these, or any other name that `apml losses` lists.
#   loss = dict(type='ChamferL2')
#   loss = dict(coarse=dict(type='ChamferL1'), fine=dict(type='APML', reduction='mean'))
#   loss = [dict(type='APML', reduction='mean'), dict(type='ChamferL2', weight=0.1)]
#   loss = dict(type='Schedule', first='ChamferL1', last=dict(type='APML', reduction='mean'), start=0, end=2)
# (YAML hosts call a schedule's ends `from` and `to`; Runner cannot write a config with the key `from`.)
# reduction='mean' has the scale of Chamfer-L1; the published loss is a sum over the points: reduction='sum'.
loss = dict(type='APML', reduction='mean')

model = dict(
    type='CompletionModel',
    net=dict(type='PCN', num_pred=512, encoder_channel=256, grid=2),
    loss=loss)

work_dir = './work_dirs/pcn_shapes_apml'
