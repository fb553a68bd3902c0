"""The PCN of pcn_shapes_apml.py trained with Chamfer: the checkpoint that pcn_shapes_finetune.py starts from."""

_base_ = './pcn_shapes_apml.py'

model = dict(loss=dict(type='ChamferL2', _delete_=True))

work_dir = './work_dirs/pcn_shapes_chamfer'
