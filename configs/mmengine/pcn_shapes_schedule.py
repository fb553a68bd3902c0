"""From Chamfer to APML over the epochs: Chamfer alone in epoch 0, half of each in epoch 1, APML alone from 2 on.

The ends are `first` and `last`; `from`, as YAML hosts write it, cannot be a keyword in a Python config.
"""

_base_ = './pcn_shapes_apml.py'

model = dict(
    loss=dict(
        _delete_=True,
        type='Schedule',
        first=dict(type='ChamferL1'),
        last=dict(type='APML', reduction='mean'),
        start=0,
        end=2))

work_dir = './work_dirs/pcn_shapes_schedule'
