"""A small PointGMM on procedural shapes: the likelihood of the complete cloud, and APML on points drawn from it."""

_base_ = '../mmengine/_base_/shapes.py'

# Losses of mixtures judge the mixture, all others the drawn points. Published: HGMM and EigenPenalty of weight 10.
loss = [
    dict(type='HGMM'),
    dict(type='EigenPenalty', weight=10.0),
    dict(type='APML', reduction='mean', weight=1.0)]

model = dict(
    type='MixtureModel',
    net=dict(type='PointGMM', num_pred=512, dim_z=64, dim_h=64, levels=(8, 32, 128), encoder=(32, 64, 256)),
    loss=loss)

optim_wrapper = dict(clip_grad=dict(max_norm=10.0))

work_dir = './work_dirs/pointgmm_shapes'
