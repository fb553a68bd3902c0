"""Stand-in for the ``pointnet2_ops`` package: its ``pointnet2_utils`` in pure PyTorch."""
