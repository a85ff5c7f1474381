"""The transformer's training step in bf16 on a GPU: speed, attention kernel, and share of the peak speed.

    python benchmarks/transformer_gpu.py             a table; under 8 minutes on an H100
    python benchmarks/transformer_gpu.py --smoke     the same on a CPU, tiny: does it run?

FLOOR: least seconds for 100,000 nuclei on an H100, computed from 798 TFLOP/s in bf16 and the exponentials
that a head of width 16 needs.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from transformer import Reference, cells, network, values

from oligo_ad.inputs.batch import Batch
from oligo_ad.training.attention import attention_kernels

FLOOR = {0.5: 1.3, 0.8: 0.52, 0.9: 0.26}
CELLS = 100_000


def trainer(model: nn.Module, batch: Batch | Tensor, device: torch.device) -> Callable[[], Tensor]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            cell_BD = model.train()(batch)
        cell_BD.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return cell_BD.detach()

    return step


def seconds(
    steps: dict[str, Callable[[], Tensor]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Seconds of each variant's steps, in turns, after three for warming up."""
    wait = torch.cuda.synchronize if device.type == "cuda" else nullcontext
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(rounds + 3):
        for name, step in steps.items():
            wait()
            started = time.perf_counter()
            step()
            wait()
            if round_ >= 3:
                taken[name].append(time.perf_counter() - started)
    return taken


def kernels_seen(step: Callable[[], Tensor], device: torch.device) -> str:
    """Names of the attention kernels that the profiler saw on the device."""
    activity = ProfilerActivity.CUDA if device.type == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity]) as seen:
        step()
    names = {event.key for event in seen.key_averages()}
    return ", ".join(sorted(name[:60] for name in names if "flash" in name.lower() or "fmha" in name.lower()))


def compare(zeros: float, options: argparse.Namespace, device: torch.device) -> list[str]:
    """Lines of the table for one share of unexpressed genes."""
    options.zeros = zeros
    dense = values(options).to(device)
    batch = cells(dense)
    models: dict[str, tuple[nn.Module, Batch | Tensor]] = {
        "nn.TransformerEncoder": (Reference(network(options)).to(device), dense),
        "oligo_ad": (network(options).to(device), batch),
        "oligo_ad, compiled": (network(options).to(device), batch),
    }
    models["oligo_ad, compiled"][0].compile(fullgraph=True, dynamic=True)
    steps = {name: trainer(model, given, device) for name, (model, given) in models.items()}
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        answers = [model.eval()(given).float() for model, given in models.values()]
        named = attention_kernels(models["oligo_ad"][0], batch)
    taken = seconds(steps, device, options.rounds)
    lines = []
    for name, answer in zip(models, answers, strict=True):
        per_cell = statistics.median(taken[name]) / options.batch
        ratio = statistics.median(
            a / b for a, b in zip(taken["nn.TransformerEncoder"], taken[name], strict=True)
        )
        tokens = 1 + (options.genes if name.startswith("nn.") else batch.values.shape[1] + 1)
        difference = float((answer - answers[0]).abs().max() / answers[0].abs().max())
        lines.append(
            f"| {zeros:.0%} | {name} | {1e3 * per_cell * options.batch:.2f} | {ratio:.1f} "
            f"| {1 / per_cell:,.0f} | {tokens / per_cell:,.0f} | {FLOOR[zeros] / (CELLS * per_cell):.0%} "
            f"| {difference:.1e} |"
        )
    return [
        *lines,
        f"kernels: {', '.join(named)}; seen by the profiler: {kernels_seen(steps['oligo_ad'], device)}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--genes", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    device = torch.device("cpu" if options.smoke else "cuda")
    if options.smoke:
        options.genes, options.batch, options.rounds = 100, 2, 1
    print(torch.cuda.get_device_name() if device.type == "cuda" else "CPU: no figure means anything")
    print(
        "| zeros | variant | ms a step | × | cells/s | tokens/s | share of the floor | relative difference |"
    )
    print("|---|---|---|---|---|---|---|---|")
    lines = [line for zeros in FLOOR for line in compare(zeros, options, device)]
    print("\n".join([line for line in lines if line.startswith("|")]))
    print("\n".join([line for line in lines if not line.startswith("|")]))


if __name__ == "__main__":
    main()
