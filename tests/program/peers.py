"""How the comparisons with packages of others begin."""
import importlib.util
import os
import random
import sys


def need(*packages):
    """Ends the program, with 77 (skipped), unless Python has all of them."""
    missing = [name for name in packages if not importlib.util.find_spec(name)]
    if missing:
        print("skipped: not installed:", ", ".join(missing))
        sys.exit(77)
    os.environ["HF_HUB_OFFLINE"] = "1"


def draw_from(seed=None):
    """Seeds what draws by chance, with a seed of its own unless told, and says it."""
    import torch
    seed = random.randrange(1 << 30) if seed is None else seed
    print("seed", seed)
    torch.manual_seed(seed)
    random.seed(seed)
    return seed
