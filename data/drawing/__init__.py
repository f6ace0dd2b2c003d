"""Drawn animals: cats, dogs, and the 37 other species that the slim VGG16 is pretrained on.

`draw_animal` in animal.py puts an image together from back to front, `draw_folder` many; each other
file draws one kind of thing. `restyle` in styles.py turns an image into a pencil drawing, night or an X-ray.
"""

from .animal import SIZE, draw_animal, draw_folder, find_head
from .species import PRETRAINING
from .styles import STYLES, restyle

__all__ = ["PRETRAINING", "SIZE", "STYLES", "draw_animal", "draw_folder", "find_head", "restyle"]
