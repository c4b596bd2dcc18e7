"""One published table per file: the paper's rows, our settings, the claims that must hold."""

EXPERIMENTS = (
    "loss-ablation",
    "distill",
    "data-free",
    "lifelong",
    "single-line",
    "video",
    "dynamic",
    "saliency",
    "defence",
)
