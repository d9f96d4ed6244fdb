"""Saliency: which pixels a score depends on. Methods are graph in, graph out; pictures are made with NumPy.

    heat = sg.saliency.guided_backprop(score, image)
    sg.saliency.save_image(sg.function([image], heat)(photo), "heat.png", image=photo)
"""

from symgrad.saliency import image, png, rules
from symgrad.saliency.image import colours, grid, normalise, overlay, save_image, show
from symgrad.saliency.methods import (
    METHODS,
    deconvnet,
    deep_lift,
    grad_cam,
    gradient,
    guided_backprop,
    guided_grad_cam,
    input_x_gradient,
    integrated_gradients,
    lrp,
    occlusion,
    smoothgrad,
)
from symgrad.saliency.png import read_image

__all__ = [
    "METHODS", "colours", "deconvnet", "deep_lift", "grad_cam", "gradient", "grid", "guided_backprop", "guided_grad_cam", "image",
    "input_x_gradient", "integrated_gradients", "lrp", "normalise", "occlusion", "overlay", "png", "read_image", "rules", "save_image",
    "show", "smoothgrad",
]
