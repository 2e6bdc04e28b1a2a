"""How many devices share each training of a bench."""

from ssl_zoo import ranks
from ssl_zoo.bench.config import BenchConfig


def shared_by(config: BenchConfig, batch_size: int) -> tuple[int, int]:
    """Devices on each machine, and machines, that share a training: as torchrun says, else as was asked."""
    run = config.run
    devices, nodes = run.num_devices, run.num_nodes
    if ranks.launched() > 1:
        devices, nodes = ranks.launched_here(), ranks.launched() // ranks.launched_here()
    elif nodes > 1 and run.executor != "slurm":
        raise ValueError(f"run.num_nodes={nodes}: give run.executor=slurm, or start torchrun on each machine")
    elif devices > 1 and run.executor == "inline":
        raise ValueError(f"run.num_devices={devices} in one process; give run.executor=local")
    if devices * nodes > 1 and ":" in run.device:
        raise ValueError(f"run.device={run.device} for {devices * nodes} devices; give run.device=cuda")
    if devices * nodes > 1 and config.budget.seconds is not None:
        raise ValueError("a budget in seconds is measured on one device; give steps, images or flops")
    if batch_size % (devices * nodes * run.accumulate):
        raise ValueError(
            f"batch_size={batch_size} on {devices * nodes} devices with run.accumulate={run.accumulate}; "
            f"give a multiple of {devices * nodes * run.accumulate}"
        )
    return devices, nodes
