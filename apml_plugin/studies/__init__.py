"""What the demo, `apml compare` and the MMEngine hooks share: generated shapes, and pictures of predictions.

- `shapes`: procedural shapes and views of them; `solids`: what they are made of; `completion`: a data set of them.
- `predictions`: where points are wrong, in colour; `distances`: how far apart matched points are; `canvas`: figures.
"""
