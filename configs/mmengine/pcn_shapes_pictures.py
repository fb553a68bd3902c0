"""Hooks that look at the same held-out shapes after every epoch, and where their pictures go.

They draw `predictions` (input, prediction and ground truth side by side, coloured by error) and `matched_distance`
(how far apart matched points are, with the first epoch's outline). LocalVisBackend puts them as PNG files into
`work_dirs/pcn_shapes_pictures/<time>/vis_data/vis_image`; with `pip install tensorboard`, add TensorboardVisBackend.
"""

_base_ = './pcn_shapes_apml.py'

custom_hooks = [
    dict(type='PredictionPictureHook', interval=1, samples=4, at_start=True),
    dict(type='MatchedDistanceHook', interval=1, samples=8, at_start=True),
]
visualizer = dict(
    type='Visualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
        # dict(type='TensorboardVisBackend'),
    ])

work_dir = './work_dirs/pcn_shapes_pictures'
