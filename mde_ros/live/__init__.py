"""The node as it is deployed: what it says over DDS to what is played."""
