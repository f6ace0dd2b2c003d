"""From a folder of images to a tested classifier: this course against what else one would pick."""
