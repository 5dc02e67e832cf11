"""``python -m nnvtrain COMMAND``: see ``python -m nnvtrain --help``."""

import argparse


def main():
    p = argparse.ArgumentParser(prog="nnvtrain", description="Train, quantise and export NNV bundles.")
    sub = p.add_subparsers(dest="command", required=True)
    from . import bench, curve, export, pack, parity, precoded, rdcheck, train
    from .sr import export as sr_export, gan, gather, mean, pairs, rate, teach, train as sr
    train.key_arguments(sub.add_parser("key", help="train the key-frame networks"))
    train.inter_arguments(sub.add_parser("inter", help="train the inter-frame networks in the closed loop"))
    precoded.arguments(sub.add_parser(
        "precode", help="put a share of the clips through other codecs ahead of training"))
    curve.arguments(sub.add_parser("curve", help="draw the learning curve of a run as SVG"))
    pack.arguments(sub.add_parser("pack", help="write training material into packs for a machine without other data"))
    export.arguments(sub.add_parser("export", help="write a bundle"))
    bench.arguments(sub.add_parser("bench", help="measure the speed of a bundle"))
    parity.arguments(sub.add_parser("check", help="check that a bundle is exact"))
    sr.arguments(sub.add_parser("sr", help="train a network of super-resolution or repair"))
    gan.gan_arguments(sub.add_parser("sr-gan", help="fine-tune one adversarially, for looks"))
    pairs.arguments(sub.add_parser("sr-pairs", help="write packs of coded and noisy pictures beside their originals"))
    teach.arguments(sub.add_parser("sr-teach", help="write windows of pictures with what a teacher makes of them"))
    gather.arguments(sub.add_parser("sr-gather", help="shrink photographs to pictures that are as good as never coded, none of them a test's"))
    rate.arguments(sub.add_parser("sr-rate", help="fit what a bit rate says of the quality of decoded pictures"))
    sr_export.arguments(sub.add_parser("sr-export", help="write a bundle of super-resolution"))
    sr_export.small_arguments(sub.add_parser("sr-small", help="shrink a checkpoint to what is kept in the repository"))
    mean.arguments(sub.add_parser("sr-mean", help="average the weights of several runs"))
    rdcheck.arguments(sub.add_parser("rdcheck", help="measure what exactness costs"))
    args = p.parse_args()
    {"key": lambda a: train.key_main(a), "inter": lambda a: train.inter_main(a), "pack": pack.run,
     "precode": precoded.run, "curve": curve.run,
     "export": export.run, "bench": bench.run, "check": parity.run,
     "rdcheck": rdcheck.run, "sr": sr.run, "sr-gan": gan.run, "sr-pairs": pairs.run, "sr-teach": teach.run, "sr-rate": rate.run, "sr-gather": gather.run, "sr-export": sr_export.run,
     "sr-small": sr_export.small_run, "sr-mean": mean.run}[args.command](args)


if __name__ == "__main__":
    main()
