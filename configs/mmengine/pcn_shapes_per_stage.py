"""A loss for each stage: Chamfer for the coarse cloud, APML for the fine one, which counts ten times as much."""

_base_ = './pcn_shapes_apml.py'

model = dict(
    loss=dict(_delete_=True, coarse=dict(type='ChamferL1'), fine=dict(type='APML', reduction='mean')),
    stage_weights=dict(coarse=0.1, fine=1.0))

work_dir = './work_dirs/pcn_shapes_per_stage'
