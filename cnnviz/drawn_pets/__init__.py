"""`(count, seed) -> DrawnPets`: cats and dogs drawn by program, with the truth about the evidence.

Only the ears and the muzzle tell a cat from a dog. Everything else (scene, clutter, pose, coat,
eyes, tail, light, hidden pieces) comes from random numbers that never see the label: the same
index drawn as a cat and as a dog is the same picture, but for the ears and the muzzle.
"""

from cnnviz.drawn_pets.dataset import DrawnPets, drawn_pets, write_drawn_pets

__all__ = ["DrawnPets", "drawn_pets", "write_drawn_pets"]
