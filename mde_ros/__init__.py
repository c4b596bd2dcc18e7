"""Metric depth for robots from one camera, sharpened by a 2-D LiDAR when there is one."""

__version__ = "0.1.0"
