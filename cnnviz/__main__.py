"""Diagnose a saved model and folders of images: python -m cnnviz MODEL.keras VALIDATION.

The exit code is 0 if no fault is found, 1 if there are faults, and 2 if the input is bad.
"""

import argparse
import sys


def main(arguments=None):
    """Run the command line -> exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m cnnviz",
        description="Find out what is wrong with an image classifier and its data.",
        epilog="Exit code: 0 no fault, 1 faults, 2 bad input.",
    )
    parser.add_argument("model", help="a saved Keras model, .keras or .h5")
    folder = {"metavar": "FOLDER", "help": "the same, of the images that it was trained on"}
    parser.add_argument("validation", help="a folder with one folder of images for each class")
    parser.add_argument("--train", **folder)
    parser.add_argument("--test", metavar="FOLDER", help="the same, from another source")
    parser.add_argument("--html", metavar="FILE", help="write a page with figures")
    parser.add_argument("--json", metavar="FILE", help="write the findings as JSON")
    text = "lowest and highest pixel value that the model takes; 0 255 by default"
    parser.add_argument("--range", nargs=2, type=float, default=(0, 255), metavar="N", help=text)
    parser.add_argument("--classes", nargs="+", metavar="NAME", help="folders in the model's order")
    parser.add_argument("--trusted", action="store_true", help="load a model that may run code")
    options = parser.parse_args(arguments)

    import cnnviz

    try:
        model = cnnviz.load_model(options.model, trusted=options.trusted)
        data = {"train": options.train, "test": options.test, "class_names": options.classes}
        found = cnnviz.diagnose(model, options.validation, value_range=options.range, **data)
        for path in filter(None, (options.html, options.json)):
            found.save(path)
    except (ValueError, OSError) as error:
        print(f"cnnviz: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(found)
    return int(bool(found.faults))


if __name__ == "__main__":
    sys.exit(main())
