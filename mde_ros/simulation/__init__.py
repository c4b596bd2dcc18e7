"""Random furnished rooms and streets, rendered with MuJoCo: RGB, depth, instances, scan, poses."""
