"""What the processes of one run say to each other. All functions are collective: every rank calls them, in one order."""

from typing import TypeVar

T = TypeVar("T")


def broadcast(value: T) -> T:
    """Rank 0's value on every rank."""
    import torch.distributed as dist

    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: T) -> list[T]:
    """Every rank's value, by rank, on every rank."""
    import torch.distributed as dist

    box: list[T] = [value] * dist.get_world_size()
    dist.all_gather_object(box, value)
    return box


def total(*values: float) -> list[float]:
    """Sums over all ranks in float64."""
    import torch
    import torch.distributed as dist
    from deepspeed.accelerator import get_accelerator

    sums = torch.tensor(values, dtype=torch.float64, device=get_accelerator().current_device_name())
    dist.all_reduce(sums)
    return [float(value) for value in sums]


def barrier() -> None:
    import torch.distributed as dist

    dist.barrier()
