"""Draw cats and dogs by program, with masks of where the evidence for the class is.

Only the ears and the muzzle tell a cat from a dog. Everything else (scene, pose, coat, eyes, light,
noise, hidden pieces) comes from random numbers that never see the label: the same index drawn as a
cat and as a dog gives the same image except for the ears and the muzzle.
"""

from cnnviz.drawn_pets.dataset import DrawnPets, drawn_pets, write_drawn_pets

__all__ = ["DrawnPets", "drawn_pets", "write_drawn_pets"]
