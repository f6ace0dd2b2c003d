"""From a folder of pictures to a tested classifier: this course against what else one would pick."""
