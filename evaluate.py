"""Computes every number of the paper, each by a command: Table 1 (five metrics), Table 3 (ablations), Table 4 (sampling steps), Figure 1 (time).

Paper: Sec. 5. Table 2 is `python -m evaluation.bench`. The work is done in evaluation/scoring.py.

    python evaluate.py --data folder --root examples --compare           the example, beside reference frame and weighted merge; half a minute
    python evaluate.py --data kalantari --root DIR                       Table 1, Kalantari's rows (--data hu: Hu's)
    python evaluate.py --data kalantari --root DIR --table 3             Table 3 from the checkpoints in runs/
    python evaluate.py --data kalantari --root DIR --steps 5 10 20 50 100 --weights runs/stage2/weights.pt      Table 4
    python evaluate.py --data sen --root DIR                             no truth: pictures only
    python evaluate.py --data kalantari --root DIR --predictions OUT     the .hdr files of any other program, scored the same way

A prediction is OUT/NAME.hdr, or the one .hdr file in OUT/NAME/, for each scene folder NAME: linear radiance in units of the shortest
exposure. The last part of OUT names the method. Values above 1 are clipped, as in the truth. An .hdr file has 8-bit mantissas: this costs up to
0.4 dB for a result of 52 dB, and 0.05 dB for one of 42 dB.

Written to --out: scores.csv, scores.md, figure1.png (mean PSNR-μ against median seconds per image), METHOD_worst.png and METHOD_best.png
(by PSNR-μ), and for scenes without truth, or with --save, METHOD/SCENE.hdr and .png, which --predictions can read.

Seconds are for the whole inference, from frames in memory to the result in memory, without files and metrics. The seconds of the diffusion
(Table 4) are for the condition net and S steps. scores.csv has the time of one pass, the tables have the median over the scenes.
"""

from dataclasses import dataclass, field

from common import Count, Seed, Side, Whole, parse, pick_device, pick_precision, run

from brackets.merge import PLAIN
from brackets.prepare import AlignmentConfig
from evaluation.hdrvdp2 import HDRVDP2Config
from evaluation.report import write_report
from evaluation.scoring import MERGES, check, evaluate, open_scenes, plain_method, prediction_methods, table3_runs, weights_methods


@dataclass
class EvaluateConfig:
    """Scores on a data set."""
    data: str = "synthetic"             # kalantari, hu, sen, tursun (their test scenes), synthetic, or folder: --root or its sub-folders are scenes
    root: str = ""                      # folder of the data set (default: data/NAME)
    weights: tuple[str, ...] = ()       # files to score (default: the shipped one, unless --predictions or --table say what to score)
    predictions: tuple[str, ...] = ()   # folders of .hdr files made by other programs
    compare: bool = False               # score the reference frame alone and weighted merges, too: plain, registered, aligned
    steps: tuple[Count, ...] = ()       # DDIM steps S, one or several, for Table 4 (default: as trained) [paper: 10]
    sampler: str = "ddim"               # ddim, or ancestral: all T steps of Eq. 14
    table: int = 0                      # 3: the rows of Table 3, from --runs
    runs: str = "runs"                  # folder of the runs baseline, stage1, stage2_split, stage2_without_dm and stage2, for --table 3
    out: str = "results/evaluate"       # folder for the results
    save: bool = False                  # write every result as .hdr and .png, not only where there is no truth
    hdrvdp2: bool = True                # measure HDR-VDP-2, which takes seconds per image
    scenes: Whole = 0                   # score only the first so many scenes; 0: all (synthetic: 8)
    size: Side = 256                    # side of a synthetic scene, pixels
    hdr_dir: str = ""                   # folder of .hdr images for the synthetic scenes, as in training
    rendered_dir: str = ""              # folder of path-traced brackets for the synthetic scenes, as in training
    seed: Seed = 0                      # of the initial noise z_T, the same for each image
    device: str = "auto"                # auto, cpu, cuda, cuda:1, mps
    precision: str = "auto"             # auto (bfloat16 where the hardware has it; else float16 on CUDA, float32 elsewhere), float32, bfloat16, float16
    tile: int = 0                       # side of the tiles of a large image, pixels; 0: no tiles up to 3 megapixels, else 1280; -1: never tiles
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    screen: HDRVDP2Config = field(default_factory=HDRVDP2Config)


def main():
    """Runs the evaluation: settings, methods, scenes, scores, tables."""
    config = parse(EvaluateConfig, description=__doc__)
    check(config)
    device = pick_device(config.device)
    dtype = pick_precision(config.precision, device)
    methods, runs = table3_runs(config, device, dtype) if config.table else (weights_methods(config, device, dtype), None)
    methods += [plain_method(name) for name in (*PLAIN, *MERGES)] if config.compare else []
    scenes = open_scenes(config) if methods or config.predictions else []
    methods += prediction_methods(config, scenes)
    rows = evaluate(methods, scenes, config, device, dtype)
    write_report(rows, methods, runs, config, f"{str(dtype).removeprefix('torch.')} on {device}, seed {config.seed}")


if __name__ == "__main__":
    run(main)
