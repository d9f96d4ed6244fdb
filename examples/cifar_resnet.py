"""Why does a real ResNet-32 say "cat"? Plain, guided and deconvnet maps over the photo, the model untouched.

    python cifar_resnet.py --weights cifar10_resnet32.npz --image cat.png --output cat_maps.png

The weights are arrays arr_0, arr_1, ... in the order the network uses them: for each convolution w (out, in,
3, 3), then batch norm beta, gamma, mean and inverse standard deviation; at the end the dense w (64, 10) and
b.
"""

import argparse

import numpy as np

import symgrad as sg
import symgrad.tensor as T
from symgrad.saliency.image import grid, overlay, resize, save_picture

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
MEAN = np.array([125.3, 123.0, 113.9]) / 255
METHODS = ("gradient", "guided_backprop", "deconvnet")


def resnet32(arrays):
    """The network as a function: image (n, 3, 32, 32) -> logits (n, 10)."""
    def conv_norm(x, weights, stride=1):
        w, beta, gamma, mean, inverse_std = (next(weights) for _ in range(5))
        scale = (gamma * inverse_std)[:, None, None]
        shift = beta[:, None, None] - mean[:, None, None] * scale
        return T.conv2d(x, T.constant(w), stride=stride, padding=1) * scale + shift

    def shortcut(x, stride):
        if stride == 1:
            return x
        pad = x.shape[1] // 2                         # a quarter of the new channels, which are twice as many
        return T.pad(x[:, :, ::2, ::2], ((0, 0), (pad, pad), (0, 0), (0, 0)))

    def network(x):
        weights = iter(arrays)
        x = T.relu(conv_norm(x, weights))
        for stage in range(3):
            for block in range(5):
                stride = 2 if stage and not block else 1
                with sg.scope(f"stage{stage + 1}/block{block + 1}"):
                    y = conv_norm(T.relu(conv_norm(x, weights, stride)), weights)
                    x = T.relu(y + shortcut(x, stride))
        w, b = weights
        return T.matmul(T.mean(x, axis=(2, 3)), T.constant(w)) + T.constant(b)

    return network


def load_weights(path):
    """The arrays of the file, in order."""
    with np.load(path) as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]


def prepared(picture):
    """A picture (h, w, 3) in [0, 1] as the network's input (1, 3, 32, 32), reduced by averaging areas."""
    return (np.moveaxis(resize(picture, (32, 32)) - MEAN, -1, 0)[None]).astype("float32")


def build(arrays, backend=None):
    """A compiled function: image -> probabilities (10,) and one map per method for the likeliest class."""
    image = T.tensor("image", (1, 3, 32, 32))
    logits = resnet32(arrays)(image)
    score = T.max(logits)
    maps = {method: sg.saliency.METHODS[method](score, image) for method in METHODS}
    return sg.function([image], {"probabilities": T.softmax(logits)[0], **maps}, backend=backend)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="npz of the published ResNet-32: arr_0 ... arr_156")
    parser.add_argument("--image", required=True, help="a photo; it is averaged down to 32x32")
    parser.add_argument("--output", default="cat_maps.png")
    options = parser.parse_args()

    photo = sg.saliency.read_image(options.image)
    result = build(load_weights(options.weights))(prepared(photo))
    for k in np.argsort(-result["probabilities"])[:3]:
        print(f"{CLASSES[k]:<12}{result['probabilities'][k]:.4f}")
    panels = [photo, *(overlay(photo, result[method]) for method in METHODS)]
    save_picture(grid([panels], titles=["photo", *METHODS]), options.output)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
