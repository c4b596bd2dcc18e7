"""The ROS side: messages in, one call of the pipeline, messages out."""
